"""Repositories of the Hugging Face Hub: a branch becomes a commit once, and what goes wrong becomes a sentence."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from filelock import FileLock
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from mmeb.errors import MmebError

# The commits that the published numbers and file listings refer to; elsewhere a branch is resolved when a run starts.
DEFAULT_REVISIONS = {
    "TIGER-Lab/MMEB-eval": "2f069730be515ea60778413777816b53e2d2a697",
    "TIGER-Lab/MMEB-train": "76dd0a440b6d4c02776830a804443fffbb2d0bfa",
}

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")  # the ETag of a large file is its hash


def is_offline(offline: bool) -> bool:
    """Whether no call may leave the machine: asked for, or HF_HUB_OFFLINE is set."""
    return offline or constants.HF_HUB_OFFLINE


def resolve(repository: str, revision: str | None, *, offline: bool) -> str:
    """The commit of a dataset repository's branch, tag or commit; by default that of DEFAULT_REVISIONS, else `main`."""
    revision = revision or DEFAULT_REVISIONS.get(repository, "main")
    if _COMMIT.fullmatch(revision):
        return revision
    if is_offline(offline):
        reference = _cache(repository) / "refs" / revision
        if not reference.is_file():
            raise MmebError(_NOT_CACHED.format(what=f"{repository} at {revision!r}"))
        return reference.read_text().strip()
    with plain_errors(repository):
        # The card is tiny, and fetching it leaves the branch's commit in the cache, where a later offline run finds it.
        snapshot = huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns="README.md"
        )
    return Path(snapshot).name


def cached_files(repository: str, commit: str) -> list[str]:
    """The paths of the files of a commit that are in the local cache."""
    snapshot = place(repository, commit, "", None)
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def list_files(repository: str, commit: str) -> dict[str, int]:
    """All files of a commit with their sizes in bytes; asks the hub."""
    with plain_errors(repository):
        info = huggingface_hub.HfApi().dataset_info(repository, revision=commit, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def fetch(repository: str, commit: str, file: str, *, offline: bool, folder: Path | None = None) -> Path:
    """One file of a commit: from the cache, or downloaded into it (or into `folder`).

    What broke off is taken up where it stopped, by the next call too: the client's own downloads start anew then, and
    the images are one file of gigabytes. Processes that want the same file wait for the first of them.
    """
    path = place(repository, commit, file, folder)
    if path.is_file():
        return path
    if is_offline(offline):
        raise MmebError(_NOT_CACHED.format(what=f"{file} of {repository} at {commit[:8]}"))
    with plain_errors(repository, file):
        part = _part(repository, commit, file, folder)
        part.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if path.is_file():
                return path
            url = huggingface_hub.hf_hub_url(repository, file, repo_type="dataset", revision=commit)
            known = huggingface_hub.get_hf_file_metadata(url)
            if folder is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                _download(url, known, part, file).replace(path)
            else:
                blob = part.with_name(known.etag or part.stem)
                if not blob.is_file():  # another commit may have the same file
                    _download(url, known, part, file).replace(blob)
                # The client finds the blob in its place and adds what else its cache holds.
                huggingface_hub.hf_hub_download(repository, file, repo_type="dataset", revision=commit)
    return path


def place(repository: str, commit: str, file: str, folder: Path | None) -> Path:
    """Where `fetch` puts a file."""
    return (_cache(repository) / "snapshots" / commit if folder is None else folder) / file


def fetched_bytes(repository: str, commit: str, file: str, folder: Path | None) -> int:
    """How much of a file that is not in its place yet has arrived."""
    part = _part(repository, commit, file, folder)
    return part.stat().st_size if part.is_file() else 0


def _part(repository: str, commit: str, file: str, folder: Path | None) -> Path:
    """Where a file lies until it is whole."""
    name = hashlib.sha256(f"{repository}/{commit}/{file}".encode()).hexdigest()[:32]
    return (_cache(repository) / "blobs" if folder is None else folder / ".cache") / f"{name}.part"


def _download(url: str, known: huggingface_hub.HfFileMetadata, part: Path, file: str) -> Path:
    """Fill `part` with the rest of the file, check it, and return it."""
    with part.open("ab") as target:
        http_get(
            url,
            target,
            resume_size=target.tell(),
            headers=build_hf_headers(),
            expected_size=known.size,
            displayed_filename=file,
        )
    with part.open("rb") as source:
        is_hashed = _SHA256.fullmatch(known.etag or "")
        is_whole = not is_hashed or hashlib.file_digest(source, "sha256").hexdigest() == known.etag
    if not is_whole:
        part.unlink()
        raise MmebError(f"{file} arrived damaged from {url}, its checksum is wrong: run the same command again.")
    return part


_PLAIN = {
    errno.ENOSPC: "there is no space left; free some, or set HF_HOME to another disk",
    errno.EDQUOT: "the disk quota is used up; free some, or set HF_HOME to another disk",
    errno.EACCES: "permission is denied; set HF_HOME to a folder of yours",
    errno.EROFS: "the file system is read-only; set HF_HOME to a folder of yours",
}

_NOT_CACHED = (
    "{what} is not in the local cache, and no call may leave the machine: fetch it with `mmeb data download` where "
    "there is a network, or use `--data demo`."
)


def _cache(repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


@contextmanager
def plain_errors(
    repository: str,
    file: str = "",
    instead: str = "name a folder with --data, or use the built-in demo with `--data demo`",
) -> Iterator[None]:
    """Turn what the hub's client raises into one plain sentence; `instead` is what to do without the hub."""
    what = f"{file} of {repository}" if file else repository
    try:
        yield
    except errors.GatedRepoError:
        raise MmebError(
            f"{repository} asks for its terms to be accepted on its page on the hub; then log in."
        ) from None
    except errors.RepositoryNotFoundError as error:
        raise MmebError(
            f"The hub has no {repository}, or does not show it to you (HTTP {_status(error)}): check the name, and log "
            "in with `hf auth login` if it is private."
        ) from None
    except errors.RevisionNotFoundError:
        raise MmebError(
            f"{repository} has no such revision: name none, or a branch, tag or commit that it has."
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise MmebError(f"The hub has no {what}: the repository is not laid out as expected.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise MmebError(_unreachable(what, error.__cause__ or error, instead)) from None
    except errors.HfHubHTTPError as error:
        hint = "log in with `hf auth login`" if _status(error) in {401, 403} else "check the name, or try again later"
        raise MmebError(f"The hub answered HTTP {_status(error)} for {what}: {hint}.") from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the HTTP client's own, which differs by version
        raise MmebError(_unreachable(what, error, instead)) from None
    except OSError as error:
        if (reason := _PLAIN.get(error.errno or 0)) is not None:
            raise MmebError(f"{what} can't be stored in {error.filename or 'its folder'}: {reason}.") from None
        if "Consistency check" not in str(error):
            raise
        raise MmebError(f"The download of {what} broke off: run the same command again, it is resumed.") from None


def _unreachable(what: str, error: BaseException, instead: str) -> str:
    if "Protocol" in type(error).__name__ or "Read" in type(error).__name__:
        return f"The download of {what} broke off: run the same command again, it is resumed."
    return (
        f"The hub cannot be reached for {what} ({type(error).__name__}): check the network or HF_ENDPOINT, {instead}."
    )


def _status(error: errors.HfHubHTTPError) -> int:
    return error.response.status_code
