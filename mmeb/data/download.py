"""Fetch the rows and images of some tasks from the hub before a run needs them."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmeb.data import hub
from mmeb.data.archives import plain_tar
from mmeb.data.sources import DOWNLOAD_MARKER, HUB_REPOSITORIES, HubSource, open_source, row_files
from mmeb.errors import MmebError
from mmeb.results.atomic import write_text
from mmeb.tasks import Task

_UNPACKED = 2  # a gzipped tar of photos, decompressed, is at most about this much larger than itself


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub, and the folder that it goes to; None is the hub's own cache. `size` is in bytes."""

    repository: str
    commit: str
    file: str
    size: int
    folder: Path | None

    @property
    def path(self) -> Path:
        return hub.place(self.repository, self.commit, self.file, self.folder)

    @property
    def missing_bytes(self) -> int:
        """What is still to be written for it: what has not arrived, and the plain copy of a gzipped tar."""
        arrived = hub.fetched_bytes(self.repository, self.commit, self.file, self.folder)
        packed = self.file.endswith((".tar.gz", ".tgz"))
        left = 0 if self.path.is_file() else self.size - arrived
        return left + (_UNPACKED * self.size if packed and not self.path.with_suffix("").is_file() else 0)


def download(
    data: str,
    tasks: Sequence[Task],
    *,
    output: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> list[Path]:
    """Fetch what these tasks need of `hub` or `instruct` data, and return the files.

    Only these tasks' rows are fetched; the images are one file for all. They go to the hub's cache, where `--data hub`
    finds them, or to the folder `output`, for `--data output`. Raises MmebError where the space does not suffice, the
    hub does not deliver, or, with `offline`, something is not there yet.
    """
    if data not in HUB_REPOSITORIES:
        raise MmebError(f"Only {' and '.join(HUB_REPOSITORIES)} can be downloaded, not {data!r}.")
    tasks = [task for task in tasks if not task.is_custom]  # a user's own have their own files
    source = open_source(data, revision=revision, offline=offline)
    assert isinstance(source, HubSource)
    if hub.is_offline(offline):
        found = [path for task in tasks for path in source.row_files(task)]
        return [*found, *source.images.archives]
    files = plan(source, tasks, output)
    _check_space(files)
    for file in tqdm(files, desc="files", unit="file", disable=None):
        hub.fetch(file.repository, file.commit, file.file, offline=False, folder=file.folder)
        if file.file.endswith((".tar.gz", ".tgz")):
            plain_tar(file.path)
    if output is not None:
        _mark(source, output)
    return [file.path for file in files]


def plan(source: HubSource, tasks: Sequence[Task], output: Path | None) -> list[RemoteFile]:
    """The files that these tasks need, each once, the images last."""
    names = source.repository
    rows_folder, images_folder = (
        None if output is None else output / repository.split("/")[1] for repository in (names.rows, names.images)
    )
    if output is not None:
        _check_marker(source, output)
    chosen: dict[str, int] = {}
    for task in tasks:
        files = row_files(source.listing, task)
        if not files:
            raise MmebError(f"{names.rows} at {source.rows_commit[:8]} has no rows of {task.name}.")
        chosen.update((file, source.listing[file]) for file in files)
    planned = [RemoteFile(names.rows, source.rows_commit, file, size, rows_folder) for file, size in chosen.items()]
    sizes = source.listing if names.images == names.rows else hub.list_files(names.images, source.images_commit)
    if names.images_file not in sizes:
        raise MmebError(f"{names.images} at {source.images_commit[:8]} has no {names.images_file}.")
    size = sizes[names.images_file]
    return [*planned, RemoteFile(names.images, source.images_commit, names.images_file, size, images_folder)]


def _check_space(files: Sequence[RemoteFile]) -> None:
    needed = sum(file.missing_bytes for file in files)
    place = next(parent for parent in files[0].path.parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MmebError(
            f"The download needs {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: make room, or choose "
            "another place with --output or HF_HOME."
        )


def _marker(source: HubSource, output: Path) -> tuple[Path, str]:
    described = source.describe()
    path = output / source.repository.rows.split("/")[1] / DOWNLOAD_MARKER
    return path, json.dumps({"repository": described.repository, "revision": described.revision}, indent=2) + "\n"


def _mark(source: HubSource, output: Path) -> None:
    write_text(*_marker(source, output))


def _check_marker(source: HubSource, output: Path) -> None:
    path, content = _marker(source, output)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise MmebError(f"{output} holds another revision, as {path} says: choose another --output.")
