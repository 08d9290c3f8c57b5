"""Data on the hub: which files of which repositories a part needs, and whether there is space for them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants
from tqdm import tqdm

from mmeb.data import hub
from mmeb.data.images.archives import plain_path, plain_tar
from mmeb.data.images.index import Archive, check_zip
from mmeb.data.images.store import ImageStore
from mmeb.data.part import DataSource, Part, Source
from mmeb.errors import MmebError

_UNPACKED = 2  # a gzipped tar of photos, decompressed, is at most about this much larger than itself


@dataclass(frozen=True)
class HubRepository:
    """A published form of the data: a repository of rows, and files of images, maybe of another repository."""

    kind: str
    rows: str
    images: str
    images_file: str  # {subset} stands for the subset's name where each has its own


HUB_REPOSITORIES = {
    "hub": HubRepository("hub", "TIGER-Lab/MMEB-eval", "TIGER-Lab/MMEB-eval", "images.zip"),
    "instruct": HubRepository(
        "instruct", "ziyjiang/MMEB_Test_Instruct", "TIGER-Lab/MMEB-V2", "image-tasks/mmeb_v1.tar.gz"
    ),
}
TRAIN_REPOSITORY = HubRepository("hub", "TIGER-Lab/MMEB-train", "TIGER-Lab/MMEB-train", "images_zip/{subset}.zip")


@dataclass(frozen=True)
class HubSource(Source):
    """A published form of the data, at commits that are fixed when the source is opened."""

    repository: HubRepository
    rows_commit: str
    images_commit: str
    offline: bool
    _stores: dict[str, ImageStore] = field(default_factory=dict, repr=False, compare=False)
    _listings: dict[str, dict[str, int]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, repository: HubRepository, revision: str | None, *, offline: bool) -> "HubSource":
        """`revision` pins the rows, or rows and images as `ROWS+IMAGES` where they are in two repositories."""
        rows, _, images = (revision or "").partition("+")
        rows_commit = images_commit = hub.resolve(repository.rows, rows or None, offline=offline)
        if repository.images != repository.rows:
            images_commit = hub.resolve(repository.images, images or None, offline=offline)
        return cls(repository, rows_commit, images_commit, hub.is_offline(offline))

    def describe(self) -> DataSource:
        commits = dict.fromkeys((self.rows_commit, self.images_commit))
        return DataSource(self.repository.kind, self.repository.rows, "+".join(commits))

    def row_files(self, part: Part) -> list[Path]:
        return [file.fetch(self.offline) for file in self._row_files(part)]

    def images(self, part: Part) -> ImageStore:
        file = self._images_file(part)
        if file.name not in self._stores:
            archive = file.fetch(self.offline)
            place = Archive(check_zip(archive) if archive.suffix == ".zip" else archive)
            self._stores[file.name] = ImageStore((place,))
        return self._stores[file.name]

    def fetch(self, parts: Sequence[Part], output: Path | None = None) -> list[Path]:
        """Download what these parts need, to a folder below `output` or into the hub's cache, and return the files.

        Raises MmebError, before anything is fetched, where a file is missing or the space does not suffice; with
        `offline`, where something is not in the cache.
        """
        files = [file for part in parts for file in self._row_files(part, output)]
        files = list(dict.fromkeys([*files, *(self._images_file(part, output) for part in parts)]))
        if not self.offline:
            self._check(files)
        paths = []
        for file in tqdm(files, desc="files", unit="file", disable=True if all(file.local for file in files) else None):
            paths.append(file.fetch(self.offline))
            if not self.offline:
                plain_tar(paths[-1])
        return paths

    def _check(self, files: Sequence["_RemoteFile"]) -> None:
        """Raise MmebError where the hub lacks a file that is not here, or the disk the space for all of them."""
        needed = 0
        for file in files:
            size = 0 if file.local else self._listing(file.repository, file.commit).get(file.name)
            if size is None:
                raise MmebError(f"{file.repository} at {file.commit[:8]} has no {file.name}.")
            needed += file.missing_bytes(size)
        target = files[0].folder or Path(constants.HF_HUB_CACHE)
        place = next(folder for folder in (target, *target.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise MmebError(
                f"The download needs {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: make room, or "
                "choose another place with --output or HF_HOME."
            )

    def _row_files(self, part: Part, output: Path | None = None) -> list["_RemoteFile"]:
        """The files of a part's rows; makes no call where they are in the cache."""
        rows, commit = self.repository.rows, self.rows_commit
        names = part.select(hub.cached_files(rows, commit))
        if not names and not self.offline:
            names = part.select(self._listing(rows, commit))
        if not names:
            place = "local cache" if self.offline else "repository"
            train = f" --train {part.name}" if part.split else ""
            raise MmebError(
                f"The {place} has no {part.kind} of {part.name} ({rows} at {commit[:8]}): fetch them with "
                f"`mmeb data download{train}` where there is a network, or use `--data demo`."
            )
        return [_RemoteFile.of(rows, commit, name, output) for name in names]

    def _images_file(self, part: Part, output: Path | None = None) -> "_RemoteFile":
        name = self.repository.images_file.format(subset=part.name)
        return _RemoteFile.of(self.repository.images, self.images_commit, name, output)

    def _listing(self, repository: str, commit: str) -> dict[str, int]:
        """All files of a repository with their sizes in bytes; asks the hub once."""
        if repository not in self._listings:
            self._listings[repository] = hub.list_files(repository, commit)
        return self._listings[repository]


@dataclass(frozen=True)
class _RemoteFile:
    """A file on the hub, and the folder that it goes to; None is the hub's cache."""

    repository: str
    commit: str
    name: str
    folder: Path | None

    @classmethod
    def of(cls, repository: str, commit: str, name: str, output: Path | None) -> "_RemoteFile":
        return cls(repository, commit, name, None if output is None else output / repository.split("/")[1])

    @property
    def local(self) -> Path | None:
        return hub.find_local(self.repository, self.commit, self.name, self.folder)

    def missing_bytes(self, size: int) -> int:
        """What must still be written: what has not arrived of `size` bytes, and the plain copy of a gzipped tar."""
        if (local := self.local) is not None:
            return 0 if plain_path(local).is_file() else _UNPACKED * local.stat().st_size
        arrived = hub.fetched_bytes(self.repository, self.commit, self.name, self.folder)
        is_packed = plain_path(Path(self.name)) != Path(self.name)
        return size - arrived + (_UNPACKED * size if is_packed else 0)

    def fetch(self, offline: bool) -> Path:
        return hub.fetch(self.repository, self.commit, self.name, offline=offline, folder=self.folder)
