"""Where training rows and their images are: the hub, a folder that holds MMEB-train, the demo, or one's own files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmeb.data.images.index import Archive, check_zip
from mmeb.data.images.store import Folder, ImageStore
from mmeb.data.source import DOWNLOAD_MARKER, DataSource
from mmeb.data.train.hub import TrainHub
from mmeb.data.train.subsets import TrainSource, plain_name, split_files
from mmeb.demo import DEMO_MARKER, demo_folder
from mmeb.errors import MmebError
from mmeb.tasks import TASKS
from mmeb.tasks.train_subsets import TRAIN_SUBSETS

_INNER = "MMEB-train"
_OWN_SUFFIXES = {".jsonl", ".parquet"}


def open_train_sources(data: str | Path, *, revision: str | None = None, offline: bool = False) -> list[TrainSource]:
    """Open what `--data` names: `hub`, `demo`, a folder, files of one's own, or several of these by commas.

    Raises MmebError for what is not there, and for own files that are called like a part of the benchmark.
    """
    places = (
        [str(data)] if data and Path(data).exists() else [part.strip() for part in str(data).split(",") if part.strip()]
    )
    sources = [_open(place, revision, offline) for place in places]
    if not sources:
        raise MmebError("No training data was named: --data takes hub, demo, a folder, or .jsonl and .parquet files.")
    names = [name for source in sources for name in source.names]
    if twice := {name for name in names if names.count(name) > 1}:
        raise MmebError(f"{min(twice)} is there twice in --data {data}: name it once, or rename a file.")
    return sources


def _open(place: str, revision: str | None, offline: bool) -> TrainSource:
    if place == "hub":
        return TrainHub.open(revision, offline=offline)
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
        if (marker := self.folder.parent / DEMO_MARKER).is_file():
            known = json.loads(marker.read_text(encoding="utf-8"))
            return DataSource("demo", ", ".join(f"{name} {value}" for name, value in known.items()))
        if (marker := self.folder / DOWNLOAD_MARKER).is_file():
            known = json.loads(marker.read_text(encoding="utf-8"))
            return DataSource("folder", known["repository"], known["revision"])
        return DataSource("folder", str(self.folder))

    def prepare(self, subsets: Sequence[str], split: str) -> None:
        """All is here."""

    def row_files(self, subset: str, split: str) -> list[Path]:
        if files := split_files((path.name for path in (self.folder / subset).glob("*.parquet")), split):
            return [self.folder / subset / file for file in files]
        if (self.folder / subset).is_dir():
            raise MmebError(f"{self.folder / subset} has no {split}-*.parquet, or not all parts of it: download them.")
        there = [name for name in TRAIN_SUBSETS if (self.folder / name).is_dir()]
        hint = f"it has {', '.join(there)}, which --subsets can name" if there else "it does not hold MMEB-train"
        raise MmebError(f"{self.folder} has no training rows of {subset}: {hint}.")

    def images(self, subset: str) -> ImageStore:
        archive = self.folder / "images_zip" / f"{subset}.zip"
        folders = [top / name for top in (self.folder, self.folder.parent) for name in ("images", ".")]
        return ImageStore(
            (
                *([Archive(check_zip(archive))] if archive.is_file() else []),
                *(Folder(folder, listing=False) for folder in folders if folder.is_dir()),
            )
        )


@dataclass(frozen=True)
class OwnFile(TrainSource):
    """A user's own rows, under the name of their file."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> "OwnFile":
        taken = {plain_name(name) for task in TASKS for name in (task.name, task.train_subset) if name}
        if plain_name(path.stem) in taken:
            raise MmebError(f"{path}: {path.stem} is a name of the benchmark's; call your own file something else.")
        return cls(path.resolve())

    @property
    def names(self) -> tuple[str, ...]:
        return (self.path.stem,)

    def describe(self) -> DataSource:
        return DataSource("file", str(self.path))

    def prepare(self, subsets: Sequence[str], split: str) -> None:
        """All is here."""

    def row_files(self, subset: str, split: str) -> list[Path]:
        return [self.path]

    def images(self, subset: str) -> ImageStore:
        return ImageStore((Folder(self.path.parent, listing=False),), confined=False)
