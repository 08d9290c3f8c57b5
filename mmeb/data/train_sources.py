"""Where training rows and their images are: the hub, a folder that holds MMEB-train, the demo, or files of one's own."""

import difflib
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmeb.data.demo import DEMO_MARKER, demo_folder
from mmeb.data.item import DataSource
from mmeb.data.sources import DOWNLOAD_MARKER
from mmeb.data.train_images import OwnImages, SubsetImages, TrainImages
from mmeb.errors import MmebError
from mmeb.tasks import TASKS

SPLITS = ("original", "diverse_instruction")
TRAIN_SUBSETS = tuple(task.train_subset for task in TASKS if task.train_subset is not None)

_INNER = "MMEB-train"
_OWN_SUFFIXES = {".jsonl", ".parquet"}


class TrainSource(ABC):
    """Rows and images by subset."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The subsets that it is to have."""

    @abstractmethod
    def describe(self) -> DataSource:
        """Where the data is from, for the manifest."""

    @abstractmethod
    def row_files(self, subset: str, split: str) -> list[Path]:
        """The files with a subset's rows, shards in order. Raises MmebError where there are none."""

    @abstractmethod
    def images(self, subset: str) -> TrainImages:
        """The images that the rows name. Raises MmebError where there is no place that could hold them."""


def open_train_sources(data: str | Path, *, revision: str | None = None, offline: bool = False) -> list[TrainSource]:
    """Open what `--data` names: `hub`, `demo`, a folder, files of one's own, or several of these by commas.

    Raises MmebError for what is not there, and for own files that are called like a part of the benchmark.
    """
    places = [str(data)] if Path(data).exists() else [part.strip() for part in str(data).split(",") if part.strip()]
    sources = [_open(place, revision, offline) for place in places]
    if not sources:
        raise MmebError("No training data was named: --data takes hub, demo, a folder, or .jsonl and .parquet files.")
    names = [name for source in sources for name in source.names]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MmebError(f"{min(twice)} is there twice in --data {data}: name it once, or rename a file.")
    return sources


def _open(place: str, revision: str | None, offline: bool) -> TrainSource:
    if place == "demo":
        return TrainFolder(demo_folder() / _INNER)
    path = Path(place).expanduser()
    if path.is_dir():
        return TrainFolder.open(path)
    if path.suffix not in _OWN_SUFFIXES:
        raise MmebError(f"There is no folder {path}: --data takes hub, demo, a folder, or .jsonl and .parquet files.")
    if not path.is_file():
        raise MmebError(f"There is no file {path}, which --data names.")
    return OwnFile.open(path)


@dataclass(frozen=True)
class TrainFolder(TrainSource):
    """A folder laid out as TIGER-Lab/MMEB-train; `folder` holds `<subset>/<split>-*.parquet`."""

    folder: Path

    @classmethod
    def open(cls, folder: Path) -> "TrainFolder":
        """`folder` may be the one around it."""
        folder = folder.resolve()
        return cls(folder / _INNER if (folder / _INNER).is_dir() else folder)

    @property
    def names(self) -> tuple[str, ...]:
        return TRAIN_SUBSETS

    def describe(self) -> DataSource:
        for top in (self.folder, self.folder.parent):
            if (marker := top / DEMO_MARKER).is_file():
                known = json.loads(marker.read_text(encoding="utf-8"))
                return DataSource("demo", ", ".join(f"{name} {value}" for name, value in known.items()))
            if (marker := top / DOWNLOAD_MARKER).is_file():
                known = json.loads(marker.read_text(encoding="utf-8"))
                return DataSource("folder", known["repository"], known["revision"])
        return DataSource("folder", str(self.folder))

    def row_files(self, subset: str, split: str) -> list[Path]:
        if files := split_files((path.name for path in (self.folder / subset).glob("*.parquet")), split):
            return [self.folder / subset / file for file in files]
        if (self.folder / subset).is_dir():
            raise MmebError(f"{self.folder / subset} has no {split}-*.parquet, or not all parts of it: download them.")
        there = [name for name in TRAIN_SUBSETS if (self.folder / name).is_dir()]
        hint = f"it has {', '.join(there)}, which --subsets can name" if there else "it does not hold MMEB-train"
        raise MmebError(f"{self.folder} has no training rows of {subset}: {hint}.")

    def images(self, subset: str) -> SubsetImages:
        return subset_images(self.folder, subset)


@dataclass(frozen=True)
class OwnFile(TrainSource):
    """A user's own rows, under the name of their file."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "OwnFile":
        taken = {_plain(name) for task in TASKS for name in (task.name, task.train_subset) if name}
        if _plain(path.stem) in taken:
            raise MmebError(f"{path}: {path.stem} is a name of the benchmark's; call your own file something else.")
        return cls(path.resolve())

    @property
    def names(self) -> tuple[str, ...]:
        return (self.path.stem,)

    def describe(self) -> DataSource:
        return DataSource("file", str(self.path))

    def row_files(self, subset: str, split: str) -> list[Path]:
        return [self.path]

    def images(self, subset: str) -> OwnImages:
        return OwnImages(self.path.parent)


def subset_images(folder: Path, subset: str) -> SubsetImages:
    """Where a subset's images are below the folder of MMEB-train."""
    archive = folder / "images_zip" / f"{subset}.zip"
    if archive.is_file() and not zipfile.is_zipfile(archive):
        raise MmebError(f"The archive {archive} is cut off or damaged: delete it and download it again.")
    unpacked = [top / name for top in (folder, folder.parent) for name in ("images", ".") if (top / name).is_dir()]
    return SubsetImages(archive if archive.is_file() else None, tuple(unpacked))


def split_files(files: Iterable[str], split: str) -> list[str]:
    """Those of a subset's files that hold a split, shards in order; none where a shard is missing."""
    chosen = sorted(file for file in files if file.startswith(f"{split}-") and file.endswith(".parquet"))
    parts = chosen[0].removesuffix(".parquet").rpartition("-of-")[2] if chosen else ""
    return chosen if not parts.isdigit() or len(chosen) == int(parts) else []


def choose_subsets(names: Iterable[str], sources: Iterable[TrainSource]) -> list[tuple[str, TrainSource]]:
    """The subsets that a user names, `all` being every one, each with the source that has it.

    Raises MmebError for a name that no source has, with the reason where the benchmark only evaluates on it.
    """
    known = {name: source for source in sources for name in source.names}
    wanted = dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    if not wanted:
        raise MmebError("No training subset was named: --subsets takes all, or names by commas.")
    for name in wanted:
        if name not in known and name != "all":
            raise MmebError(_refusal(name, known))
    chosen = known if "all" in wanted else wanted
    return [(name, known[name]) for name in known if name in chosen]


# Data sets that early revisions of MMEB-train held by mistake.
_WITHDRAWN = {"cifar100", "fashioniq", "imageneta", "imagenetr"}


def _refusal(name: str, known: Iterable[str]) -> str:
    known = list(known)
    plain = {_plain(other): other for other in known}
    if _plain(name) in plain:
        return f"There is no training subset {name!r}: did you mean {plain[_plain(name)]}?"
    note = "; early revisions of MMEB-train held it by mistake" if _plain(name) in _WITHDRAWN else ""
    if any(_plain(name) == _plain(task.name) and not task.in_distribution for task in TASKS):
        return f"{name} is out of distribution in MMEB: models are scored on it and may not be trained on it{note}."
    if note:
        return f"{name} is not one of MMEB-train's 20 subsets{note}."
    near = [plain[match] for match in difflib.get_close_matches(_plain(name), plain, n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
    return f"There is no training subset {name!r}: {hint}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
