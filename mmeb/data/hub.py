"""Repositories of the Hugging Face Hub: a branch becomes a commit once, and what goes wrong becomes a sentence."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants, errors

from mmeb.errors import MmebError

# The commits that the published numbers and file listings refer to; elsewhere a branch is resolved when a run starts.
DEFAULT_REVISIONS = {
    "TIGER-Lab/MMEB-eval": "2f069730be515ea60778413777816b53e2d2a697",
    "TIGER-Lab/MMEB-train": "76dd0a440b6d4c02776830a804443fffbb2d0bfa",
}

_COMMIT = re.compile(r"[0-9a-f]{40}")


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
    snapshot = _cache(repository) / "snapshots" / commit
    return sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())


def list_files(repository: str, commit: str) -> dict[str, int]:
    """All files of a commit with their sizes in bytes; asks the hub."""
    with plain_errors(repository):
        tree = huggingface_hub.HfApi().list_repo_tree(repository, repo_type="dataset", revision=commit, recursive=True)
        return {entry.path: entry.size for entry in tree if isinstance(entry, huggingface_hub.RepoFile)}


def fetch(repository: str, commit: str, file: str, *, offline: bool, folder: Path | None = None) -> Path:
    """One file of a commit: from the cache, or downloaded into it (or into `folder`), taken up where it broke off."""
    if is_offline(offline):
        path = _cache(repository) / "snapshots" / commit / file
        if not path.is_file():
            raise MmebError(_NOT_CACHED.format(what=f"{file} of {repository} at {commit[:8]}"))
        return path
    with plain_errors(repository, file):
        return Path(
            huggingface_hub.hf_hub_download(repository, file, repo_type="dataset", revision=commit, local_dir=folder)
        )


_NOT_CACHED = (
    "{what} is not in the local cache, and no call may leave the machine: fetch it with `mmeb data download` where "
    "there is a network, or use `--data demo`."
)


def _cache(repository: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


@contextmanager
def plain_errors(repository: str, file: str = "") -> Iterator[None]:
    """Turn what the hub's client raises into one plain sentence."""
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
        raise MmebError(f"{repository} has no such revision: leave --revision out, or take a commit of its.") from None
    except errors.RemoteEntryNotFoundError:
        raise MmebError(f"The hub has no {what}: the repository is not laid out as expected.") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise MmebError(_unreachable(what, error.__cause__ or error)) from None
    except errors.HfHubHTTPError as error:
        hint = "log in with `hf auth login`" if _status(error) in {401, 403} else "try again later"
        raise MmebError(f"The hub answered HTTP {_status(error)} for {what}: {hint}.") from None
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # the HTTP client's own, which differs by version
        raise MmebError(_unreachable(what, error)) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MmebError(f"There is no space left for {what} in {constants.HF_HUB_CACHE}; free some.") from None
        if "Consistency check" not in str(error):
            raise
        raise MmebError(f"The download of {what} broke off: run the same command again, it is resumed.") from None


def _unreachable(what: str, error: BaseException) -> str:
    if "Protocol" in type(error).__name__ or "Read" in type(error).__name__:
        return f"The download of {what} broke off: run the same command again, it is resumed."
    return (
        f"The hub cannot be reached for {what} ({type(error).__name__}): check the network or HF_ENDPOINT, give a folder "
        "with --data, or use the built-in demo with `--data demo`."
    )


def _status(error: errors.HfHubHTTPError) -> int:
    return error.response.status_code
