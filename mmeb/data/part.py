"""What is read of a data set, and the interface of everything that it can be read from."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmeb.data.images.index import is_macos_twin
from mmeb.data.images.store import ImageStore
from mmeb.tasks import Task

_SHARD = re.compile(r"-\d{5}-of-(\d{5})\.")
_TRAINING = ("train", "original", "diverse_instruction")  # how files with training rows are called


@dataclass(frozen=True)
class DataSource:
    """Where rows came from: part of every result's provenance and of every trained model's manifest."""

    kind: str  # "hub", "instruct", "folder", "demo", "file"
    repository: str
    revision: str | None = None


@dataclass(frozen=True)
class Part:
    """The test rows of a task, or one split of a training subset. `folders` are the names that its folder may have."""

    name: str
    folders: tuple[str, ...]
    split: str | None = None  # of MMEB-train; None stands for test rows

    @classmethod
    def of_task(cls, task: Task) -> "Part":
        return cls(task.name, tuple(dict.fromkeys(name for name in (task.name, task.train_subset) if name)))

    @classmethod
    def of_subset(cls, subset: str, split: str) -> "Part":
        return cls(subset, (subset,), split)

    @property
    def kind(self) -> str:
        """What messages call it: "rows", "original rows"."""
        return "rows" if self.split is None else f"{self.split} rows"

    def select(self, files: Iterable[str]) -> list[str]:
        """Those among a repository's or a folder's files (relative paths) that hold these rows, shards in order.

        None where a shard is missing. The test rows of a subset are a folder `<name>/` with parquet or JSONL files, or
        a file `<name>.parquet` or `.jsonl`; parquet goes before JSONL, and files called `test…` before others. Training
        rows are `<name>/<split>-*.parquet`.
        """
        files = sorted(self._training_files(files) if self.split else self._test_files(files))
        shards = _SHARD.search(files[0]) if files else None
        return files if shards is None or len(files) == int(shards[1]) else []

    def _training_files(self, files: Iterable[str]) -> list[str]:
        return [file for file in files if file.startswith(f"{self.name}/{self.split}-") and file.endswith(".parquet")]

    def _test_files(self, files: Iterable[str]) -> list[str]:
        kinds: dict[tuple[int, bool, bool], list[str]] = {}
        for file in files:
            path = PurePosixPath(file)
            name = next((name for name in self.folders if name in (path.parent.name, path.stem)), None)
            if name is None or path.suffix not in {".parquet", ".jsonl"} or is_macos_twin(file):
                continue
            if path.stem != name and path.name.startswith(_TRAINING):
                continue
            kind = (self.folders.index(name), path.suffix != ".parquet", not path.name.startswith("test"))
            kinds.setdefault(kind, []).append(file)
        return kinds[min(kinds)] if kinds else []


class Source(ABC):
    """Rows and images of the parts of a data set."""

    @abstractmethod
    def describe(self) -> DataSource:
        """Where the data is from; its revision given to `open_source` opens the same data again."""

    @abstractmethod
    def row_files(self, part: Part) -> list[Path]:
        """The files with a part's rows, shards in order. Raises MmebError where there are none."""

    @abstractmethod
    def images(self, part: Part) -> ImageStore:
        """The images that a part's rows name. Raises MmebError where the place that should hold them can't."""

    def fetch(self, parts: Sequence[Part]) -> list[Path]:
        """Download what these parts need and is not here yet, and return the files; none where the data is local."""
        return []
