"""Images in zip and tar archives, read in place.

A reference knows where its bytes lie in the archive. A worker process needs no index to read it, and no handle is held
between reads, so that references can be pickled, forked and read by many processes at once.
"""

import gzip
import os
import shutil
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from tqdm import tqdm

from mmeb.data.images.image import HEAD_BYTES, ImageRef
from mmeb.errors import MmebError
from mmeb.files import replacing

_LARGEST = 1 << 30  # bytes of one unpacked image file; whatever claims more is no image
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")  # the record before each member's data (zip specification, 4.3.7)


@dataclass(frozen=True, eq=False)
class ArchiveImage(ImageRef):
    """A member of an archive: `stored` bytes from `offset` on, `length` when unpacked."""

    archive: Path
    name: str
    offset: int
    stored: int
    length: int
    origin: str = ""

    @property
    def key(self) -> str:
        return f"{self.archive}/{self.name}"

    def _open(self) -> BinaryIO:
        if self.length > _LARGEST:
            raise self._damaged(f"it unpacks to {self.length:,} bytes, as a decompression bomb would")
        try:
            return self.archive.open("rb")
        except OSError as error:
            raise self._damaged(str(error.strerror)) from None

    def _bytes(self, file: BinaryIO, offset: int, count: int) -> bytes:
        file.seek(offset)
        data = file.read(count)
        if len(data) < count:
            raise self._damaged("the archive ends before it does")
        return data

    def _damaged(self, why: str) -> MmebError:
        return MmebError(f"{self.origin or 'image'}: {self.name} can't be read from {self.archive}: {why}.")


@dataclass(frozen=True, eq=False)
class TarImage(ArchiveImage):
    """An image in an uncompressed tar. Of a sparse member only the `pieces` (start, bytes) are stored."""

    pieces: tuple[tuple[int, int], ...] | None = None

    def stamp(self) -> str:
        return f"{self.archive.stat().st_mtime_ns}:{self.length}"

    def read(self) -> bytes:
        return self._first(self.length)

    def head(self) -> bytes:
        return self._first(min(self.length, HEAD_BYTES))

    def _first(self, count: int) -> bytes:
        with self._open() as file:
            if self.pieces is None:
                return self._bytes(file, self.offset, count)
            content, offset = bytearray(self.length), self.offset
            for start, size in self.pieces:
                content[start : start + size] = self._bytes(file, offset, size)
                offset += size
            return bytes(content[:count])


@dataclass(frozen=True, eq=False)
class ZipImage(ArchiveImage):
    """An image in a zip, stored or deflated; `offset` is that of its local header."""

    method: int = zipfile.ZIP_STORED
    crc: int = 0
    encrypted: bool = False

    def stamp(self) -> str:
        return str(self.crc)

    def read(self) -> bytes:
        data = self._unpack(self.stored, self.length)
        if len(data) != self.length or zlib.crc32(data) != self.crc:
            raise self._damaged("its checksum is wrong, so the archive is damaged")
        return data

    def head(self) -> bytes:
        return self._unpack(min(self.stored, HEAD_BYTES), min(self.length, HEAD_BYTES))

    def _unpack(self, stored: int, length: int) -> bytes:
        """The first `length` bytes or fewer, out of the first `stored` bytes of the archive's."""
        if self.encrypted or self.method not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise self._damaged("only stored and deflated members without a password can be read")
        with self._open() as file:
            header = _LOCAL_HEADER.unpack(self._bytes(file, self.offset, _LOCAL_HEADER.size))
            if header[0] != b"PK\x03\x04":
                raise self._damaged("its header is wrong, so the archive is damaged")
            data = self._bytes(file, self.offset + _LOCAL_HEADER.size + header[-2] + header[-1], stored)
        if self.method == zipfile.ZIP_STORED:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, max(length, 1))  # 0 would be no limit
        except zlib.error as error:
            raise self._damaged(f"{error}, so the archive is damaged") from None


def damaged_archive(path: Path, error: Exception) -> MmebError:
    """The sentence on an archive that can't be opened or unpacked."""
    return MmebError(
        f"The archive {path} is cut off or damaged ({str(error).rstrip('.')}): delete it and download it again with "
        "`mmeb data download`."
    )


def plain_path(path: Path) -> Path:
    """Where the uncompressed tar of a gzipped one lies: beside it; other archives are what they are."""
    if path.suffix.lower() not in {".gz", ".tgz"}:
        return path
    return path.with_suffix("" if path.stem.lower().endswith(".tar") else ".tar")


def plain_tar(path: Path) -> Path:
    """An uncompressed tar of a gzipped one, beside it; made once.

    Gzip can only be read from the start. One plain tar costs one sequential pass and one file, serves every choice of
    tasks, and can be read in place; extracting would make 100,000 files. Photos hardly compress, so that it is not much
    larger than what was downloaded.
    """
    plain = plain_path(path)
    if plain == path or _is_current(plain, path):
        return plain
    if not os.access(path.parent, os.W_OK):
        raise MmebError(f"{path} must be decompressed once, and its folder can't be written to.")
    with FileLock(f"{plain}.lock"):
        if _is_current(plain, path):
            return plain
        size = path.stat().st_size
        if shutil.disk_usage(path.parent).free < size:
            raise MmebError(f"{path} must be decompressed beside itself, and there is not enough space for it.")
        with (
            replacing(plain) as staging,
            path.open("rb") as packed,
            gzip.open(packed) as source,
            staging.open("wb") as target,
            tqdm(total=size, desc=f"decompressing {path.name}", unit="B", unit_scale=True, disable=None) as bar,
        ):
            while block := _next_block(source, path):
                target.write(block)
                bar.update(packed.tell() - bar.n)
    return plain


def _next_block(source: gzip.GzipFile, path: Path) -> bytes:
    try:
        return source.read(1 << 22)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise damaged_archive(path, error) from None


def _is_current(plain: Path, packed: Path) -> bool:
    return plain.is_file() and plain.stat().st_mtime >= packed.stat().st_mtime
