"""Fetch the rows and images of some tasks from the hub before a run needs them."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmeb.data import hub
from mmeb.data.remote import RemoteFile, fetch_all
from mmeb.data.source import DOWNLOAD_MARKER, HUB_REPOSITORIES, DataSource, HubSource, open_source, row_files
from mmeb.data.train.hub import TrainHub
from mmeb.data.train.subsets import choose_subsets
from mmeb.errors import MmebError
from mmeb.files import write_text
from mmeb.tasks import Task


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
    paths = fetch_all(files)
    if output is not None:
        _mark(source.describe(), output)
    return paths


def plan(source: HubSource, tasks: Sequence[Task], output: Path | None) -> list[RemoteFile]:
    """The files that these tasks need, each once, the images last."""
    names = source.repository
    rows_folder, images_folder = (
        None if output is None else output / repository.split("/")[1] for repository in (names.rows, names.images)
    )
    if output is not None:
        _check_marker(source.describe(), output)
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


def download_train(
    subsets: Sequence[str] = ("all",),
    *,
    split: str = "original",
    output: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> list[Path]:
    """Fetch one split and the images of some of MMEB-train's subsets, and return the files; as `download` does."""
    source = TrainHub.open(revision, offline=offline)
    names = [name for name, _ in choose_subsets(subsets, [source])]
    if source.offline:
        return [path for name in names for path in source.local_files(name, split)]
    described = source.describe()
    folder = None if output is None else output / described.repository.split("/")[1]
    if output is not None:
        _check_marker(described, output)
    paths = source.fetch(names, split, folder)
    if output is not None:
        _mark(described, output)
    return paths


def _marker(source: DataSource, output: Path) -> tuple[Path, str]:
    path = output / source.repository.split("/")[1] / DOWNLOAD_MARKER
    return path, json.dumps({"repository": source.repository, "revision": source.revision}, indent=2) + "\n"


def _mark(source: DataSource, output: Path) -> None:
    write_text(*_marker(source, output))


def _check_marker(source: DataSource, output: Path) -> None:
    path, content = _marker(source, output)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        raise MmebError(f"{output} holds another revision, as {path} says: choose another --output.")
