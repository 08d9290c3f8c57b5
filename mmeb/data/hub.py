"""Repositories of the Hugging Face Hub: branches, files, the local cache, and one sentence for whatever goes wrong."""

import errno
import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from filelock import FileLock
from huggingface_hub import constants, errors
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from mmeb.errors import MmebError

# The commits that the published numbers and file listings refer to; elsewhere a branch is resolved when a run starts.
DEFAULT_REVISIONS = {
    "TIGER-Lab/MMEB-eval": "2f069730be515ea60778413777816b53e2d2a697",
    "TIGER-Lab/MMEB-train": "76dd0a440b6d4c02776830a804443fffbb2d0bfa",
}

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")  # the ETag of a large file is its hash

_DISK_ERRORS = {
    errno.ENOSPC: "there is no space left; free some, or set HF_HOME to another disk",
    errno.EDQUOT: "the disk quota is used up; free some, or set HF_HOME to another disk",
    errno.EACCES: "permission is denied; set HF_HOME to a folder of yours",
    errno.EROFS: "the file system is read-only; set HF_HOME to a folder of yours",
}


def is_offline(offline: bool) -> bool:
    """Whether no call may leave the machine: asked for, or HF_HUB_OFFLINE is set."""
    return offline or constants.HF_HUB_OFFLINE


def resolve(repository: str, revision: str | None, *, offline: bool) -> str:
    """The commit of a dataset repository's branch, tag or commit; by default that of DEFAULT_REVISIONS, else `main`."""
    revision = revision or DEFAULT_REVISIONS.get(repository, "main")
    if _COMMIT.fullmatch(revision):
        return revision
    if is_offline(offline):
        if (cached := cached_snapshot(repository, revision)) is None:
            raise _not_cached(f"{repository} at {revision!r}")
        return cached.name
    with plain_errors(repository):
        # The card is tiny, and fetching it leaves the branch's commit in the cache, where a later offline run finds it.
        snapshot = huggingface_hub.snapshot_download(
            repository, repo_type="dataset", revision=revision, allow_patterns="README.md"
        )
    return Path(snapshot).name


def cached_snapshot(repository: str, revision: str) -> Path | None:
    """The folder in the local cache of a dataset's branch, tag or commit, as far as downloaded; makes no call.

    Its name is the commit. None where nothing of it is there.
    """
    try:
        snapshot = huggingface_hub.snapshot_download(
            repository,
            repo_type="dataset",
            revision=revision,
            allow_patterns=[],  # it need not be complete
            local_files_only=True,
        )
    except errors.LocalEntryNotFoundError:
        return None
    return Path(snapshot)


def cached_files(repository: str, commit: str) -> list[str]:
    """The paths of the files of a commit that are in the local cache."""
    if (snapshot := cached_snapshot(repository, commit)) is None:
        return []
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def list_files(repository: str, commit: str) -> dict[str, int]:
    """All files of a commit with their sizes in bytes; asks the hub."""
    with plain_errors(repository):
        info = huggingface_hub.HfApi().dataset_info(repository, revision=commit, files_metadata=True)
    return {file.rfilename: file.size or 0 for file in info.siblings or []}


def find_local(repository: str, commit: str, file: str, folder: Path | None = None) -> Path | None:
    """A file that `fetch` has put into the cache (or into `folder`), None where it is not there yet."""
    if folder is not None:
        return folder / file if (folder / file).is_file() else None
    cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=commit, repo_type="dataset")
    return Path(cached) if isinstance(cached, str) else None


def fetch(repository: str, commit: str, file: str, *, offline: bool, folder: Path | None = None) -> Path:
    """One file of a commit: from the cache, or downloaded into it (or into `folder`).

    An interrupted download is resumed, by the next call too: the client's own downloads start anew then, and the images
    are one file of gigabytes. Processes that need the same file wait for the first of them.
    """
    if (local := find_local(repository, commit, file, folder)) is not None:
        return local
    if is_offline(offline):
        raise _not_cached(f"{file} of {repository} at {commit[:8]}")
    part = _part(repository, commit, file, folder)
    with plain_errors(repository, file):
        part.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{part}.lock"):
            if (local := find_local(repository, commit, file, folder)) is not None:
                return local
            url = huggingface_hub.hf_hub_url(repository, file, repo_type="dataset", revision=commit)
            metadata = huggingface_hub.get_hf_file_metadata(url)
            if folder is not None:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                return _download(url, metadata, part, repository, file).replace(folder / file)
            blob = part.with_name(metadata.etag or part.stem)
            if not blob.is_file():  # another commit may have the same file
                _download(url, metadata, part, repository, file).replace(blob)
            # The client finds the blob in its place and adds what else its cache holds.
            return Path(huggingface_hub.hf_hub_download(repository, file, repo_type="dataset", revision=commit))


def fetched_bytes(repository: str, commit: str, file: str, folder: Path | None = None) -> int:
    """How much of a file has arrived whose download is not complete."""
    part = _part(repository, commit, file, folder)
    return part.stat().st_size if part.is_file() else 0


def _part(repository: str, commit: str, file: str, folder: Path | None) -> Path:
    """Where a file lies until it is complete: beside its final place, on the same disk."""
    name = hashlib.sha256(f"{repository}/{commit}/{file}".encode()).hexdigest()[:32]
    cache = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="dataset"), "blobs")
    return (cache if folder is None else folder / ".cache") / f"{name}.part"


def _download(url: str, metadata: huggingface_hub.HfFileMetadata, part: Path, repository: str, file: str) -> Path:
    """Fill `part` with the rest of the file, check it, and return it."""
    try:
        with part.open("ab") as target:
            http_get(
                url,
                target,
                resume_size=target.tell(),
                headers=build_hf_headers(),
                expected_size=metadata.size,
                displayed_filename=file,
            )
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # the HTTP client's own class
        if isinstance(error, errors.HfHubHTTPError) or (isinstance(error, OSError) and error.errno is not None):
            raise  # the hub's answer, or the disk's
        raise MmebError(
            f"The download of {file} of {repository} broke off: run the same command again, it is resumed."
        ) from None
    with part.open("rb") as source:
        is_hashed = _SHA256.fullmatch(metadata.etag or "")
        is_intact = not is_hashed or hashlib.file_digest(source, "sha256").hexdigest() == metadata.etag
    if not is_intact:
        part.unlink()
        raise MmebError(f"{file} arrived damaged from {url}, its checksum is wrong: run the same command again.")
    return part


def _not_cached(what: str) -> MmebError:
    return MmebError(
        f"{what} is not in the local cache, and no call may leave the machine: fetch it with `mmeb data download` "
        "where there is a network, or use `--data demo`."
    )


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
            f"The hub has no {repository}, or does not show it to you (HTTP {error.response.status_code}): check the "
            "name, and log in with `hf auth login` if it is private."
        ) from None
    except errors.RevisionNotFoundError:
        raise MmebError(
            f"{repository} has no such revision: name none, or a branch, tag or commit that it has."
        ) from None
    except errors.RemoteEntryNotFoundError:
        raise MmebError(f"The hub has no {what}: the repository is not laid out as expected.") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        hint = "log in with `hf auth login`" if status in {401, 403} else "check the name, or try again later"
        raise MmebError(f"The hub answered HTTP {status} for {what}: {hint}.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HTTPError) as error:  # type: ignore[attr-defined]
        raise MmebError(
            f"The hub cannot be reached for {what}, or the connection broke off "
            f"({type(error.__cause__ or error).__name__}): check the network or HF_ENDPOINT, {instead}."
        ) from None
    except errors.HFValidationError:
        raise MmebError(f"{repository!r} is neither a folder nor the name of a repository on the hub.") from None
    except (ValueError, ImportError) as error:  # an answer that is no JSON, a proxy or token that can't be used
        raise MmebError(
            f"The hub's client fails for {what} ({type(error).__name__}: {str(error).partition(chr(10))[0]}): check "
            f"HF_ENDPOINT, HF_TOKEN and the proxy variables, {instead}."
        ) from None
    except OSError as error:
        if (reason := _DISK_ERRORS.get(error.errno or 0)) is None:
            raise
        raise MmebError(f"{what} can't be stored in {error.filename or 'its folder'}: {reason}.") from None
