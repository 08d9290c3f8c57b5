"""Where the images of a data set are: folders and archives, in the layouts that MMEB was published in."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mmeb.data.images.archives import ArchiveImage, index_archive, is_archive, is_macos_twin
from mmeb.data.images.image import FileImage, ImageRef
from mmeb.errors import MmebError

# Folders that one release or another puts around the same image paths.
_WRAPPERS = ("MMEB", "images", "eval_images", "image-tasks", "MMEB-eval")


def canonical(path: str) -> str:
    """An image path without the wrapping folders of older layouts: `MMEB/CIRR/x.jpg` is `CIRR/x.jpg`."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    return "/".join(parts)


def check_path(path: str, origin: str) -> None:
    """Raise MmebError for an image path that leaves its folder."""
    parts = path.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
        raise MmebError(f"{origin}: the image path {path!r} leaves the folder of images, and is refused.")


@dataclass
class ImageStore:
    """Finds images by a row's path, in folders first, then in archives; looks at neither before it is asked."""

    folders: Sequence[Path]
    archives: Sequence[Path]
    _listings: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    @classmethod
    def within(cls, tops: Iterable[Path]) -> "ImageStore":
        """The images below these folders: in them, in the wrapping folders of known layouts, or in archives there."""
        folders = [folder for top in tops for folder in (top, *(top / name for name in _WRAPPERS)) if folder.is_dir()]
        folders = list(dict.fromkeys(folders))
        archives = [path for folder in folders for path in sorted(folder.iterdir()) if is_archive(path)]
        undone = {path for path in archives if path.suffix == ".gz" and path.with_suffix("") in archives}
        return cls(folders, [path for path in archives if path not in undone])

    def find(self, path: str, origin: str) -> ImageRef | None:
        """The image that a row calls `path`, None where there is none; MmebError where the path leaves the folder."""
        check_path(path, origin)
        for name in dict.fromkeys((path, canonical(path))):
            if (found := self._in_folders(name, origin)) is not None:
                return found
            if (member := self._members.get(name)) is not None:
                return replace(member, origin=origin)
        return None

    def _in_folders(self, path: str, origin: str) -> ImageRef | None:
        parent, _, name = path.rpartition("/")
        for folder in self.folders:
            if name in self._listing(f"{folder}/{parent}"):
                return FileImage(folder / path, origin)
        return None

    def _listing(self, folder: str) -> frozenset[str]:
        # One listing per folder instead of one look-up per image: network disks charge for each.
        if folder not in self._listings:
            entries = os.scandir(folder) if os.path.isdir(folder) else ()
            self._listings[folder] = frozenset(
                entry.name for entry in entries if not is_macos_twin(entry.name) and entry.is_file()
            )
        return self._listings[folder]

    @cached_property
    def _members(self) -> dict[str, ArchiveImage]:
        """The archives' members by name and by canonical name."""
        members: dict[str, ArchiveImage] = {}
        for archive in self.archives:
            for member in index_archive(archive):
                members.setdefault(member.name, member)
                members.setdefault(canonical(member.name), member)
        return members
