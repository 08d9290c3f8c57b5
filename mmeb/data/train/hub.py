"""MMEB-train on the hub: the wanted split and images of the wanted subsets, and nothing else of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmeb.data import hub
from mmeb.data.images.index import Archive, check_zip
from mmeb.data.images.store import ImageStore
from mmeb.data.remote import RemoteFile, fetch_all
from mmeb.data.source import DataSource
from mmeb.data.train.subsets import TrainSource, split_files
from mmeb.errors import MmebError
from mmeb.tasks.train_subsets import TRAIN_SUBSETS

REPOSITORY = "TIGER-Lab/MMEB-train"


@dataclass(frozen=True)
class TrainHub(TrainSource):
    """The repository at a commit that is fixed when the source is opened."""

    commit: str
    offline: bool

    @classmethod
    def open(cls, revision: str | None, *, offline: bool) -> "TrainHub":
        return cls(hub.resolve(REPOSITORY, revision, offline=offline), hub.is_offline(offline))

    @property
    def names(self) -> tuple[str, ...]:
        return TRAIN_SUBSETS

    def describe(self) -> DataSource:
        return DataSource("hub", REPOSITORY, self.commit)

    def prepare(self, subsets: Sequence[str], split: str) -> None:
        if not self.offline:
            self.fetch(subsets, split, None)

    def local_files(self, subset: str, split: str) -> list[Path]:
        """The files of a subset that are here. Raises MmebError where one is not, and no call may leave the machine."""
        return [*self.row_files(subset, split), self._path(archive_file(subset))]

    def row_files(self, subset: str, split: str) -> list[Path]:
        return [self._path(file) for file in self._row_files(subset, split)]

    def images(self, subset: str) -> ImageStore:
        return ImageStore((Archive(check_zip(self._path(archive_file(subset)))),))

    def fetch(self, subsets: Sequence[str], split: str, folder: Path | None) -> list[Path]:
        """Fetch what these subsets need, into `folder` or the hub's cache, and return the files."""
        wanted = [file for subset in subsets for file in (*self._row_files(subset, split), archive_file(subset))]
        here = [hub.find_local(REPOSITORY, self.commit, file, folder) for file in wanted]
        if None not in here:
            return [path for path in here if path is not None]
        if missing := [file for file in wanted if file not in self._listing]:
            raise MmebError(f"{REPOSITORY} at {self.commit[:8]} has no {missing[0]}.")
        return fetch_all([RemoteFile(REPOSITORY, self.commit, file, self._listing[file], folder) for file in wanted])

    def _row_files(self, subset: str, split: str) -> list[str]:
        """The paths of a split's files in the repository, as far as that is known without a call."""
        files = _of_subset(hub.cached_files(REPOSITORY, self.commit), subset, split)
        if not files and not self.offline:
            files = _of_subset(self._listing, subset, split)
        if not files:
            place = "local cache" if self.offline else "repository"
            raise MmebError(
                f"The {place} has no {split} rows of {subset} ({REPOSITORY} at {self.commit[:8]}): fetch them with "
                f"`mmeb data download --train {subset}` where there is a network, or use `--data demo`."
            )
        return files

    def _path(self, file: str) -> Path:
        return hub.fetch(REPOSITORY, self.commit, file, offline=self.offline)

    @cached_property
    def _listing(self) -> dict[str, int]:
        """All files of the repository, with their sizes in bytes; asks the hub."""
        return hub.list_files(REPOSITORY, self.commit)


def archive_file(subset: str) -> str:
    return f"images_zip/{subset}.zip"


def _of_subset(files: Sequence[str] | dict[str, int], subset: str, split: str) -> list[str]:
    own = [file.removeprefix(f"{subset}/") for file in files if file.startswith(f"{subset}/")]
    return [f"{subset}/{file}" for file in split_files(own, split)]
