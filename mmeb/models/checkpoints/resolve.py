"""A model's name, hub id or folder becomes a folder with its files."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from mmeb.data.hub import is_offline, plain_errors
from mmeb.errors import MmebError
from mmeb.models.checkpoints.checkpoint import WEIGHTS, Checkpoint
from mmeb.models.entries import DEFAULT_REVISIONS, ENTRIES, ModelEntry

ADAPTER_CONFIG = "adapter_config.json"
FOLDER_REVISION = "sha256:"  # a folder has no commit: its revision is a hash over its content
LORA_WEIGHTS = ("adapter_model",)

_SHORT_COMMIT = re.compile(r"[0-9a-f]{7,39}")
_SHARD = r"(-\d{5}-of-\d{5})?"
_SUFFIXES = (".safetensors", ".bin")  # in this order: a pickle is read only where there is nothing better
_SMALL = re.compile(r"[^/]+\.(json|txt|model|jinja|tiktoken)")  # configuration and tokenizer, at the root
_CONFIGURATION = re.compile(r".*(config|token|vocab|merges|spiece|chat_template).*")
_NO_HUB = "use --offline where the model is in the local cache, or try `--model demo --data demo`"


def resolve(
    entry: ModelEntry, *, base: str | None = None, offline: bool = False, weights: Iterable[str] = WEIGHTS
) -> Checkpoint:
    """The entry's files on this machine, downloaded where they are on the hub; a LoRA's base likewise.

    `base` says where a LoRA's base lies (a folder or a hub id), over what the entry and the adapter's configuration
    say. `weights` are the stems of the weight files to fetch. Raises MmebError where the hub or the folder lacks what
    is needed.
    """
    weights = tuple(weights)
    checkpoint = _place(entry, offline, weights)
    if not (checkpoint.path / ADAPTER_CONFIG).is_file():
        if base is not None:
            raise MmebError(f"{entry.source} is a full model, not a LoRA: leave the option base out.")
        return checkpoint
    source, revision = (base or entry.base, None) if base or entry.base else _base_of(checkpoint)
    if entry.base and source == entry.base:
        revision = entry.base_revision
    of_content = revision is not None and revision.startswith(FOLDER_REVISION)
    known = next((known for known in ENTRIES if known.source == source), ModelEntry(entry.name, "", str(source)))
    try:
        found = _place(replace(known, revision=None if of_content else revision), offline, weights)
    except MmebError as error:
        raise MmebError(
            f"The base of {entry.source} is missing: {str(error).rstrip('.')}; --option base=FOLDER says where it lies."
        ) from None
    if of_content and weights and found.revision != revision:
        raise MmebError(
            f"{source} is no longer what {entry.source} was trained on: put the base back as it was, or say with "
            "--option base=FOLDER that this one is meant."
        )
    return replace(checkpoint, base=found)


def weight_files(folder: Path, weights: Iterable[str] = WEIGHTS) -> list[Path]:
    """The weight files in a folder, shards in order. Raises MmebError where there are none, or a shard is missing."""
    weights = tuple(weights)
    names = _weights([path.name for path in folder.iterdir()], weights)
    if not names:
        expected = " or ".join(f"{stem}{suffix}" for stem, suffix in zip(weights, _SUFFIXES, strict=False))
        present = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in _SUFFIXES)[:3]) or "none"
        raise MmebError(
            f"{folder} has no weights in {expected} (it has {present}): download the model again, or name its "
            "--adapter."
        )
    for index in (folder / name for name in names if name.endswith(".index.json")):
        shards = set(json.loads(index.read_text())["weight_map"].values())
        if missing := sorted(shards - set(names)):
            raise MmebError(f"{folder} lacks {missing[0]}, which {index.name} names: download the model again.")
    return [folder / name for name in names if not name.endswith(".index.json")]


def copy_configuration(source: Path, folder: Path) -> None:
    """Copy a checkpoint's configuration, tokenizer and image processor: neither weights nor a LoRA's."""
    for path in source.iterdir():
        if path.is_file() and _is_configuration(path.name) and path.name != ADAPTER_CONFIG:
            shutil.copyfile(path, folder / path.name)


def _place(entry: ModelEntry, offline: bool, weights: tuple[str, ...]) -> Checkpoint:
    source, revision = entry.source, entry.revision
    folder = Path(source).expanduser() if entry.folder is None else entry.folder()
    if folder.is_dir():
        if revision is not None and not revision.startswith(FOLDER_REVISION):
            raise MmebError(f"{source} is a folder and has no revisions: leave --model-revision out.")
        return Checkpoint(entry.name, source, folder, _fingerprint(folder, weights))
    if folder.is_absolute() or source.startswith("."):
        raise MmebError(f"There is no folder {source}.")
    path = _snapshot(source, revision or DEFAULT_REVISIONS.get(source, constants.DEFAULT_REVISION), offline, weights)
    return Checkpoint(entry.name, source, path, path.name)


def _base_of(checkpoint: Checkpoint) -> tuple[str, str | None]:
    """The base that a LoRA's configuration names: a hub id or a folder, and the revision if there is one."""
    try:
        config = json.loads((checkpoint.path / ADAPTER_CONFIG).read_text())
        source, revision = config.get("base_model_name_or_path"), config.get("revision")
    except (OSError, ValueError, AttributeError):
        raise MmebError(f"The {ADAPTER_CONFIG} of {checkpoint.source} can't be read: download it again.") from None
    if not source:
        raise MmebError(f"{checkpoint.source} is a LoRA that names no base: --option base=FOLDER says where it lies.")
    return str(source), revision


def _snapshot(repository: str, revision: str, offline: bool, weights: tuple[str, ...]) -> Path:
    """The folder of a commit in the local cache; what is missing there is downloaded."""
    if is_offline(offline):
        return _cached(repository, revision)
    with plain_errors(repository, instead=_NO_HUB):
        hub = huggingface_hub.HfApi()
        if _SHORT_COMMIT.fullmatch(revision):
            revision = _full_commit(
                repository, revision, [commit.commit_id for commit in hub.list_repo_commits(repository)]
            )
        info = hub.model_info(repository, revision=revision)
        files = _needed([file.rfilename for file in info.siblings or []], weights)
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=files))


def _cached(repository: str, revision: str) -> Path:
    """The folder of a commit in the local cache, as far as it was downloaded."""
    if _SHORT_COMMIT.fullmatch(revision):
        cached = [repo for repo in huggingface_hub.scan_cache_dir().repos if repo.repo_id == repository]
        commits = [commit.commit_hash for repo in cached if repo.repo_type == "model" for commit in repo.revisions]
        if commits:
            revision = _full_commit(repository, revision, commits)
    try:
        # No pattern: a repository is never downloaded completely, and a file that is missing is named when it is read.
        return Path(
            huggingface_hub.snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        raise MmebError(
            f"{repository} at {revision!r} is not in the local cache, and no call may leave the machine: run once "
            "where there is a network, or name a folder."
        ) from None


def _full_commit(repository: str, short: str, commits: list[str]) -> str:
    found = [commit for commit in commits if commit.startswith(short)]
    if len(found) != 1:
        raise MmebError(f"{repository} has no commit {short}: name one of its commits, or main, with --model-revision.")
    return found[0]


def _needed(files: list[str], weights: tuple[str, ...]) -> list[str]:
    """What must be downloaded of a repository: no second copy of the weights, no training leftovers, no code."""
    at_root = [file for file in files if "/" not in file]
    small = [file for file in at_root if _SMALL.fullmatch(file) and not file.endswith(".index.json")]
    return small + _weights(at_root, weights)


def _weights(names: list[str], weights: tuple[str, ...]) -> list[str]:
    """The weight files among a folder's, with their index: safetensors first, and of a LoRA nothing but the LoRA."""
    stems = LORA_WEIGHTS if ADAPTER_CONFIG in names else weights
    for suffix in _SUFFIXES:
        for stem in stems:
            pattern = re.compile(rf"{re.escape(stem)}{_SHARD}{re.escape(suffix)}(\.index\.json)?")
            if found := sorted(name for name in names if pattern.fullmatch(name)):
                return found
    return []


def _is_configuration(name: str) -> bool:
    return bool(_SMALL.fullmatch(name) and _CONFIGURATION.fullmatch(name)) and not name.endswith(".index.json")


def _fingerprint(folder: Path, weights: tuple[str, ...]) -> str:
    """A hash over the files of a folder that make the model what it is: results may lie beside them."""
    digest = hashlib.sha256()
    names = [path.name for path in folder.iterdir() if path.is_file()]
    for name in sorted({*filter(_is_configuration, names), *_weights(names, weights)}):
        with (folder / name).open("rb") as file:
            digest.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return FOLDER_REVISION + digest.hexdigest()[:32]
