"""Where the rows and images of the benchmark come from: the hub, a folder, or the built-in demo."""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from mmeb.data import hub
from mmeb.data.images.index import Archive, is_macos_twin
from mmeb.data.images.store import ImageStore
from mmeb.demo import DEMO_MARKER, demo_folder
from mmeb.errors import MmebError
from mmeb.tasks import Task

DOWNLOAD_MARKER = "mmeb-data.json"  # lies in a downloaded folder, and says which commit it holds

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")
_TRAINING = ("train", "original", "diverse_instruction")
_INNER = ("MMEB-eval", "MMEB_Test_Instruct", "MMEB-V2", "image-query")  # what a folder of several repositories holds


@dataclass(frozen=True)
class DataSource:
    """Where a task's rows came from: lands in every result's provenance."""

    kind: str  # "hub", "instruct", "folder", "demo", "file"
    repository: str
    revision: str | None = None


class Source(ABC):
    """Rows by task and images by path."""

    @abstractmethod
    def describe(self) -> DataSource:
        """Where the data is from, for the provenance; its revision given to `open_source` opens the same data again."""

    @abstractmethod
    def row_files(self, task: Task) -> list[Path]:
        """The files with a task's rows, shards in order. Raises MmebError where there are none."""

    @property
    @abstractmethod
    def images(self) -> ImageStore:
        """The images that the rows name."""


def open_source(data: str | Path, *, revision: str | None = None, offline: bool = False) -> Source:
    """Open what `--data` names: `hub`, `instruct`, `demo` or a folder.

    `revision` pins the hub's data to a branch, tag or commit; what `Source.describe` tells as revision reopens the same
    data. With `offline`, or HF_HUB_OFFLINE set, no call leaves the machine. Raises MmebError where nothing is there.
    """
    if str(data) in HUB_REPOSITORIES:
        return HubSource.open(str(data), revision, offline=offline)
    folder = demo_folder() if str(data) == "demo" else Path(data).expanduser()
    if not folder.is_dir():
        names = ", ".join((*HUB_REPOSITORIES, "demo"))
        raise MmebError(f"There is no folder {folder}: --data takes {names}, or a folder.")
    source = FolderSource(folder.resolve())
    if revision not in {None, source.describe().revision}:
        raise MmebError(f"{folder} does not hold revision {revision}: --revision chooses among commits on the hub.")
    return source


def row_files(files: Iterable[str], task: Task) -> list[str]:
    """Those among a repository's or a folder's files (relative paths) that hold a task's test rows.

    A subset is a folder `<name>/` with parquet or JSONL files, or a file `<name>.parquet` or `.jsonl`; its name is the
    task's or MMEB-train's spelling of it. Parquet goes before JSONL, and files called `test…` before others.
    """
    names = _spellings(task)
    kinds: dict[tuple[int, int, int], list[str]] = {}
    for file in files:
        path = PurePosixPath(file)
        name = next((name for name in names if name in (path.parent.name, path.stem)), None)
        if name is None or path.suffix not in {".parquet", ".jsonl"} or is_macos_twin(file):
            continue
        if path.stem != name and path.name.startswith(_TRAINING):
            continue
        kind = (names.index(name), path.suffix != ".parquet", not path.name.startswith("test"))
        kinds.setdefault(kind, []).append(file)
    chosen = sorted(kinds[min(kinds)]) if kinds else []
    if (shards := _SHARD.search(chosen[0]) if chosen else None) and len(chosen) != int(shards[1]):
        return []
    return chosen


def _spellings(task: Task) -> list[str]:
    return list(dict.fromkeys(name for name in (task.name, task.train_subset) if name))


@dataclass(frozen=True)
class FolderSource(Source):
    """A folder with rows in either layout, and images beside them in folders, zips or tars."""

    folder: Path

    def describe(self) -> DataSource:
        for marker in (top / DEMO_MARKER for top in self._tops):
            if marker.is_file():
                known = json.loads(marker.read_text(encoding="utf-8"))
                return DataSource("demo", ", ".join(f"{name} {value}" for name, value in known.items()))
        for marker in (top / DOWNLOAD_MARKER for top in self._tops):
            if marker.is_file():
                known = json.loads(marker.read_text(encoding="utf-8"))
                return DataSource("folder", known["repository"], known["revision"])
        return DataSource("folder", str(self.folder))

    def row_files(self, task: Task) -> list[Path]:
        for top in self._tops:
            places = [path for name in _spellings(task) for path in (*top.glob(f"{name}.*"), *(top / name).glob("*"))]
            if found := row_files([path.relative_to(top).as_posix() for path in places if path.is_file()], task):
                return [top / file for file in found]
        raise MmebError(
            f"{self.folder} has no rows of {task.name}: expected {task.name}/test-*.parquet or {task.name}.jsonl, "
            "in it or in its folder MMEB-eval."
        )

    @cached_property
    def images(self) -> ImageStore:
        return ImageStore.within(self._tops)

    @property
    def _tops(self) -> list[Path]:
        outer = [self.folder.parent] if self.folder.name in _INNER else []
        return [self.folder, *(self.folder / name for name in _INNER), *outer]


@dataclass(frozen=True)
class HubRepository:
    """A published form of the benchmark: a repository of rows, and a file of images, maybe of another repository."""

    rows: str
    images: str
    images_file: str


HUB_REPOSITORIES = {
    "hub": HubRepository("TIGER-Lab/MMEB-eval", "TIGER-Lab/MMEB-eval", "images.zip"),
    "instruct": HubRepository("ziyjiang/MMEB_Test_Instruct", "TIGER-Lab/MMEB-V2", "image-tasks/mmeb_v1.tar.gz"),
}


@dataclass(frozen=True)
class HubSource(Source):
    """The benchmark on the hub, at commits that are fixed when the source is opened."""

    kind: str
    rows_commit: str
    images_commit: str
    offline: bool

    @classmethod
    def open(cls, kind: str, revision: str | None, *, offline: bool) -> "HubSource":
        """`revision` pins the rows, or rows and images as `ROWS+IMAGES` where they are in two repositories."""
        repository = HUB_REPOSITORIES[kind]
        rows, _, images = (revision or "").partition("+")
        rows_commit = hub.resolve(repository.rows, rows or None, offline=offline)
        if repository.images == repository.rows:
            return cls(kind, rows_commit, rows_commit, offline)
        return cls(kind, rows_commit, hub.resolve(repository.images, images or None, offline=offline), offline)

    @property
    def repository(self) -> HubRepository:
        return HUB_REPOSITORIES[self.kind]

    def describe(self) -> DataSource:
        commits = dict.fromkeys((self.rows_commit, self.images_commit))
        return DataSource(self.kind, self.repository.rows, "+".join(commits))

    def row_files(self, task: Task) -> list[Path]:
        files = row_files(hub.cached_files(self.repository.rows, self.rows_commit), task)
        if not files and not hub.is_offline(self.offline):
            files = row_files(self.listing, task)
        if not files:
            place = "local cache" if hub.is_offline(self.offline) else "repository"
            raise MmebError(
                f"The {place} has no rows of {task.name} ({self.repository.rows} at {self.rows_commit[:8]}): "
                "fetch them with `mmeb data download` where there is a network, or use `--data demo`."
            )
        return [hub.fetch(self.repository.rows, self.rows_commit, file, offline=self.offline) for file in files]

    @cached_property
    def listing(self) -> dict[str, int]:
        """All files of the rows' repository, with their sizes in bytes; asks the hub."""
        return hub.list_files(self.repository.rows, self.rows_commit)

    @cached_property
    def images(self) -> ImageStore:
        file = self.repository.images_file
        return ImageStore((Archive(hub.fetch(self.repository.images, self.images_commit, file, offline=self.offline)),))
