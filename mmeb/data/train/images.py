"""The images of training data, found when they are asked for: a million names in tens of megabytes."""

import zipfile
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from mmeb.data.images.archives import ZipImage, zip_infos
from mmeb.data.images.image import FileImage, ImageRef
from mmeb.data.images.store import canonical, check_path
from mmeb.errors import MmebError

_PLACE = np.dtype(
    [("offset", "<i8"), ("stored", "<i8"), ("length", "<i8"), ("crc", "<u4"), ("method", "<u2"), ("encrypted", "?")]
)


class TrainImages(Protocol):
    """Finds the image that a row calls `path`; what is missing says so when it is read."""

    def find(self, path: str, origin: str) -> ImageRef: ...

    def check(self, path: str, origin: str) -> None:
        """Raise MmebError where the image is missing, as far as that shows without opening an archive."""


@dataclass(frozen=True, eq=False)
class MissingImage(ImageRef):
    """An image that is in none of the places where it could be."""

    path: str
    places: str
    origin: str = ""

    @property
    def key(self) -> str:  # type: ignore[override]
        return f"missing:{self.path}"

    def read(self) -> bytes:
        raise MmebError(f"{self.origin}: its image {self.path} is missing (looked for in {self.places}).")


@dataclass(frozen=True, eq=False)
class SubsetImages:
    """The images of one of MMEB-train's subsets: in its zip, or unpacked below one of the folders."""

    archive: Path | None
    folders: tuple[Path, ...]

    def find(self, path: str, origin: str) -> ImageRef:
        check_path(path, origin)
        if self._index is not None and (found := self._index.find(path, origin)) is not None:
            return found
        for folder in self.folders:
            for name in dict.fromkeys((path, canonical(path))):
                if (folder / name).is_file():
                    return FileImage(folder / name, origin)
        return MissingImage(path, ", ".join(str(place) for place in (self.archive, *self.folders) if place), origin)

    def check(self, path: str, origin: str) -> None:
        if self.archive is None:
            _check(self.find(path, origin))

    @cached_property
    def _index(self) -> "ZipIndex | None":
        return None if self.archive is None else ZipIndex.of(self.archive)


def check_archive(archive: Path) -> Path:
    """The archive. Raises MmebError where it is no zip, as a broken download leaves it; looks at its end alone."""
    if not zipfile.is_zipfile(archive):
        raise MmebError(f"The archive {archive} is cut off or damaged: delete it and download it again.")
    return archive


@dataclass(frozen=True, eq=False)
class OwnImages:
    """The images of a user's own rows, by paths relative to the folder of the rows' file, or absolute."""

    folder: Path

    def find(self, path: str, origin: str) -> ImageRef:
        place = self.folder / path
        return FileImage(place, origin) if place.is_file() else MissingImage(path, str(place), origin)

    def check(self, path: str, origin: str) -> None:
        _check(self.find(path, origin))


def _check(image: ImageRef) -> None:
    if isinstance(image, MissingImage):
        image.read()


@dataclass(frozen=True, eq=False)
class ZipIndex:
    """Where the members of a zip lie: about 100 bytes each, in arrays that forked workers share."""

    archive: Path
    names: Any  # pyarrow.LargeStringArray, in the order of the canonical names
    places: Any  # of _PLACE

    @classmethod
    def of(cls, archive: Path) -> "ZipIndex":
        infos = sorted(zip_infos(archive), key=lambda info: canonical(info.filename))
        places = [
            (info.header_offset, info.compress_size, info.file_size, info.CRC, info.compress_type, info.flag_bits & 1)
            for info in infos
        ]
        names = pa.array([info.filename for info in infos], pa.large_string())
        return cls(archive, names, np.array(places, _PLACE))

    def find(self, path: str, origin: str) -> ZipImage | None:
        wanted = canonical(path)
        position = bisect_left(self.names, wanted, key=lambda name: canonical(name.as_py()))
        if position == len(self.names) or canonical(name := self.names[position].as_py()) != wanted:
            return None
        fields = dict(zip(_PLACE.names or (), self.places[position].item(), strict=True))
        return ZipImage(archive=self.archive, name=name, origin=origin, **fields)
