"""The members of one archive by name: a million of them in about a hundred megabytes."""

import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmeb.data.images.archives import ArchiveImage, TarImage, ZipImage, damaged_archive, plain_tar
from mmeb.errors import MmebError

# Folders that one release or another puts around the same image paths.
WRAPPERS = ("MMEB", "images", "eval_images", "image-tasks", "MMEB-eval")

_PLACE = np.dtype(
    [
        ("offset", "<i8"),
        ("stored", "<i8"),
        ("length", "<i8"),
        ("crc", "<u4"),
        ("method", "<u2"),
        ("encrypted", "?"),
    ]
)
_Place = tuple[int, int, int, int, int, bool]
_Sparse = dict[int, tuple[tuple[int, int], ...]]  # the pieces of sparse members, by offset
_LINKS = 8  # how long a chain of links may be
_ENCRYPTED, _UTF8 = 1, 1 << 11  # bits of a zip member's flags (zip specification, 4.4.4)
_MADE_ON_DOS = 0  # the system that a zip member was made on (4.4.2)


def canonical(path: str) -> str:
    """An image path without the wrapping folders of older layouts: `MMEB/CIRR/x.jpg` is `CIRR/x.jpg`."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    while len(parts) > 1 and parts[0] in WRAPPERS:
        parts.pop(0)
    return "/".join(parts)


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")) and path.is_file()


def is_macos_twin(name: str) -> bool:
    """Whether it is one of the `._` files that macOS adds to archives and foreign disks."""
    return name.rpartition("/")[2].startswith("._") or ("__MACOSX" in name and "__MACOSX" in name.split("/"))


def check_zip(path: Path) -> Path:
    """The path. Raises MmebError where it is no zip, as a broken download leaves it; reads only the end of the file."""
    if not zipfile.is_zipfile(path):
        raise MmebError(f"The archive {path} is cut off or damaged: delete it and download it again.")
    return path


@dataclass(frozen=True, eq=False)
class Archive:
    """A .zip, .tar, .tar.gz or .tgz, opened at the first search; macOS twins are left out.

    Each name stands for what unpacking would leave there: the last member of that name, the target of a link. Raises
    MmebError, when it is searched, for an archive that is missing, cut off or none.
    """

    path: Path

    def find(self, names: tuple[str, ...], origin: str) -> ArchiveImage | None:
        """The member that has the first of these names (a path as written and its canonical form) or differs from them
        in wrapping folders only."""
        path, plain = posixpath.normpath(names[0]), canonical(names[-1])
        key = _key(plain)
        first, behind = np.searchsorted(self._index.keys, (key, key + 1)).tolist()
        members = {row: self._index.name(row) for row in range(first, behind)}
        rows = [row for row, name in members.items() if canonical(name) == plain]
        if not rows:
            return None
        # The last of several: that is what unpacking leaves.
        return self._image(max(rows, key=lambda row: (members[row] == path, members[row] == plain, row)), origin)

    def __iter__(self) -> Iterator[ArchiveImage]:
        """All members, in the order of the archive."""
        return (self._image(row, "") for row in np.argsort(self._index.places["offset"], kind="stable").tolist())

    def _image(self, row: int, origin: str) -> ArchiveImage:
        index = self._index
        offset, stored, length, crc, method, encrypted = index.places[row].item()
        shared = (index.archive, index.name(row), offset, stored, length, origin)
        if _is_zip(index.archive):
            return ZipImage(*shared, method=method, crc=crc, encrypted=encrypted)
        return TarImage(*shared, pieces=index.sparse.get(offset))

    @cached_property
    def _index(self) -> "_Index":
        try:
            if _is_zip(self.path):
                return _Index.of(self.path, _zip_members(self.path), {})
            plain = plain_tar(self.path)
            sparse: _Sparse = {}
            return _Index.of(plain, _tar_members(plain, sparse).items(), sparse)
        except (zipfile.BadZipFile, tarfile.TarError) as error:
            raise damaged_archive(self.path, error) from None
        except OSError as error:
            raise MmebError(f"The archive {self.path} can't be read: {error.strerror or error}.") from None


@dataclass(frozen=True, eq=False)
class _Index:
    """Arrays that forked workers share, sorted by the hash of the canonical name, then as the archive has them."""

    archive: Path  # with plain bytes, beside a gzipped one
    names: Any  # pyarrow.LargeBinaryArray (n,)
    keys: NDArray[np.int64]  # (n,)
    places: Any  # (n,) of _PLACE
    sparse: _Sparse

    @classmethod
    def of(cls, archive: Path, members: Iterable[tuple[str, _Place]], sparse: _Sparse) -> "_Index":
        names: list[str] = []

        def named() -> Iterator[_Place]:
            for name, place in members:
                if not is_macos_twin(name):
                    names.append(name)
                    yield place

        places = np.fromiter(named(), _PLACE)
        keys = np.fromiter((_key(canonical(name)) for name in names), np.int64, len(names))
        order = np.argsort(keys, kind="stable")
        encoded = pa.array((name.encode("utf-8", "surrogatepass") for name in names), pa.large_binary())
        return cls(archive, encoded.take(order), keys[order], places[order], sparse)

    def name(self, row: int) -> str:
        name: str = self.names[row].as_py().decode("utf-8", "surrogatepass")
        return name


def _key(name: str) -> int:
    return zlib.crc32(name.encode("utf-8", "surrogatepass"))


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _zip_members(path: Path) -> Iterator[tuple[str, _Place]]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            member = _followed_info(archive, info)
            if member is not None and not member.is_dir():
                place = (member.header_offset, member.compress_size, member.file_size, member.CRC, member.compress_type)
                yield _zip_name(info), (*place, bool(member.flag_bits & _ENCRYPTED))


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name that unpacking gives a member."""
    name = info.filename
    if info.create_system == _MADE_ON_DOS and "/" not in name:
        name = name.replace("\\", "/")
    if not info.flag_bits & _UTF8 and not name.isascii():
        try:
            return name.encode("cp437").decode("utf-8")  # written by programs that forget the flag
        except UnicodeError:
            pass
    return name


def _followed_info(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> zipfile.ZipInfo | None:
    """The member that a symbolic link stands for, as `zip -y` writes them; None where it is not in the archive."""
    for _ in range(_LINKS):
        if not stat.S_ISLNK(info.external_attr >> 16) or info.flag_bits & _ENCRYPTED:
            return info
        target = archive.read(info).decode("utf-8", "replace")
        try:
            info = archive.getinfo(_link_target(info.filename, target))
        except KeyError:
            return None
    return None


def _link_target(name: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _tar_members(path: Path, sparse: _Sparse) -> dict[str, _Place]:
    """Where the members lie; the pieces of sparse ones are added to `sparse`."""
    members: dict[str, _Place | str] = {}  # a link is the name that it stands for
    folders: set[str] = set()
    with tarfile.open(path, "r:") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header that it has seen
            name = posixpath.normpath(info.name)
            if info.islnk():
                target = posixpath.normpath(info.linkname)
                members[name] = members.get(target, target)  # what later replaces the target leaves this name alone
            elif info.issym():
                members[name] = _link_target(name, info.linkname)
            elif info.isdir():
                folders.add(name)
            elif info.isfile():
                members[name] = (info.offset_data, info.size, info.size, 0, 0, False)
                if info.issparse():
                    pieces: Any = info.sparse  # typeshed has the raw header's type
                    sparse[info.offset_data] = tuple(pieces)
    for link, target in [(name, member) for name, member in members.items() if isinstance(member, str)]:
        if target in folders:
            inside = [name for name in members if name.startswith(f"{target}/")]
            members |= {link + name.removeprefix(target): members[name] for name in inside}
    return {name: place for name, member in members.items() if (place := _followed(member, members)) is not None}


def _followed(member: _Place | str, members: dict[str, _Place | str]) -> _Place | None:
    """Where the bytes of a member lie; None for a link whose target is not in the archive."""
    for _ in range(_LINKS):
        if not isinstance(member, str):
            return member
        if (target := members.get(member)) is None:
            return None
        member = target
    return None
