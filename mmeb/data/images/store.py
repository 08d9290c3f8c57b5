"""Where the images of a data set are: folders and archives, in the layouts that MMEB was published in."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmeb.data.images.archives import plain_path
from mmeb.data.images.image import FileImage, ImageRef, MissingImage
from mmeb.data.images.index import WRAPPERS, Archive, canonical, is_archive, is_macos_twin
from mmeb.errors import MmebError

_MAX_PLACES = 3  # that a missing image names


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of images. With `listing` each of its folders is listed once, which network disks answer faster than
    a question per image; without, no memory grows with the number of images."""

    path: Path
    listing: bool = True
    _listings: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def find(self, names: tuple[str, ...], origin: str) -> FileImage | None:
        """The file that has the first of these names that any has."""
        for name in names:
            if self._has(name):
                return FileImage(self.path / name, origin)
        return None

    def _has(self, path: str) -> bool:
        if not self.listing:
            return (self.path / path).is_file()
        parent, _, name = path.rpartition("/")
        folder = f"{self.path}/{parent}"
        if folder not in self._listings:
            entries = os.scandir(folder) if os.path.isdir(folder) else ()
            self._listings[folder] = frozenset(
                entry.name for entry in entries if not is_macos_twin(entry.name) and entry.is_file()
            )
        return name in self._listings[folder]


@dataclass(frozen=True)
class ImageStore:
    """Finds images by a row's path, in one place after another; looks at none before it is asked.

    In each, the path as written goes before the one without wrapping folders. Where paths are not `confined`, as in a
    user's rows, they may be absolute or lead out of the folder.
    """

    places: tuple[Folder | Archive, ...]
    confined: bool = True

    @classmethod
    def within(cls, tops: Iterable[Path]) -> "ImageStore":
        """The images below these folders: in them, in the wrapping folders of known layouts, or in archives there."""
        folders = [folder for top in tops for folder in (top, *(top / name for name in WRAPPERS)) if folder.is_dir()]
        folders = list(dict.fromkeys(folders))
        archives = [path for folder in folders for path in sorted(folder.iterdir()) if is_archive(path)]
        archives = [path for path in archives if plain_path(path) == path or plain_path(path) not in archives]
        return cls((*map(Folder, folders), *map(Archive, archives)))

    @property
    def archives(self) -> list[Path]:
        return [place.path for place in self.places if isinstance(place, Archive)]

    def find(self, path: str, origin: str) -> ImageRef:
        """The image that a row calls `path`, a MissingImage where there is none.

        Raises MmebError where a confined path leaves the folder of images.
        """
        if self.confined:
            check_path(path, origin)
        names = (path, canonical(path)) if self.confined else (path,)
        for place in self.places:
            if (found := place.find(names, origin)) is not None:
                return found
        places = [str(place.path) for place in self.places[:_MAX_PLACES]] + ["…"] * (len(self.places) > _MAX_PLACES)
        return MissingImage(path, ", ".join(places) or "no folder", origin)

    def get(self, path: str, origin: str) -> ImageRef:
        """The image that a row calls `path`. Raises MmebError, naming `origin`, where it is missing."""
        image = self.find(path, origin)
        if isinstance(image, MissingImage):
            raise MmebError(f"{image}; `mmeb data verify` lists all such.")
        return image


def check_path(path: str, origin: str) -> None:
    """Raise MmebError for an image path that leaves its folder."""
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise MmebError(f"{origin}: the image path {path!r} leaves the folder of images, and is refused.")
