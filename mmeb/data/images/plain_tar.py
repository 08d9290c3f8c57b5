"""Gzipped tars, decompressed once for random access."""

import gzip
import os
import shutil
import zlib
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from mmeb.data.images.archives import damaged_archive
from mmeb.errors import MmebError
from mmeb.files import replacing


def plain_tar(path: Path) -> Path:
    """An uncompressed tar of a gzipped one, beside it; made once.

    Gzip can only be read from the start. One plain tar costs one sequential pass and one file, serves every choice of
    tasks, and can be read in place; extracting would make 100,000 files. Photos hardly compress, so that it is not much
    larger than what was downloaded.
    """
    plain = path.with_name(path.name.removesuffix(".gz").removesuffix(".tgz").removesuffix(".tar") + ".tar")
    if plain == path or _is_current(plain, path):
        return plain
    if not os.access(path.parent, os.W_OK):
        raise MmebError(f"{path} has to be decompressed once, and its folder can't be written to.")
    with FileLock(f"{plain}.lock"):
        if _is_current(plain, path):
            return plain
        size = path.stat().st_size
        if shutil.disk_usage(path.parent).free < size:
            raise MmebError(f"{path} has to be decompressed beside itself, and there is not enough space for it.")
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
