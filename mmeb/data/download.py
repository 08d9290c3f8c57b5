"""Fetch the rows and images of some tasks or training subsets from the hub before a run needs them."""

import json
from collections.abc import Sequence
from pathlib import Path

from mmeb.data.hub_source import HUB_REPOSITORIES, TRAIN_REPOSITORY, HubSource
from mmeb.data.part import Part
from mmeb.data.source import DOWNLOAD_MARKER
from mmeb.data.train.subsets import check_split, select_subsets
from mmeb.errors import MmebError
from mmeb.files import write_text
from mmeb.tasks import Task
from mmeb.tasks.train_subsets import TRAIN_SUBSETS


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
    parts = [Part.of_task(task) for task in tasks if not task.is_custom]
    if not parts:
        raise MmebError("There is nothing to download: the rows and images of custom tasks are where their files say.")
    return _fetch(HubSource.open(HUB_REPOSITORIES[data], revision, offline=offline), parts, output)


def download_train(
    subsets: Sequence[str] = ("all",),
    *,
    split: str = "original",
    output: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
) -> list[Path]:
    """Fetch one split and the images of some of MMEB-train's subsets, and return the files; as `download` does."""
    check_split(split)
    source = HubSource.open(TRAIN_REPOSITORY, revision, offline=offline)
    names = select_subsets(subsets, dict.fromkeys(TRAIN_SUBSETS, source))
    return _fetch(source, [Part.of_subset(name, split) for name in names], output)


def _fetch(source: HubSource, parts: Sequence[Part], output: Path | None) -> list[Path]:
    if output is None:
        return source.fetch(parts)
    if source.offline:
        raise MmebError(
            f"Offline, only the hub's cache can be checked: check a folder with `mmeb data verify --data {output}`."
        )
    described = source.describe()
    marker = output / described.repository.split("/")[1] / DOWNLOAD_MARKER
    content = json.dumps({"repository": described.repository, "revision": described.revision}, indent=2) + "\n"
    if marker.is_file() and marker.read_text(encoding="utf-8") != content:
        raise MmebError(f"{output} holds another revision, as {marker} says: choose another --output.")
    paths = source.fetch(parts, output)
    write_text(marker, content)
    return paths
