import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from mmeb.data.images.archives import index_archive, plain_tar
from mmeb.errors import MmebError

_PACK = Callable[[Path], Path]


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.gz"])
def test_members_have_the_bytes_that_were_packed(tmp_path: Path, golden: Path, pack_images: _PACK, name: str) -> None:
    archive = pack_images(tmp_path / name)
    stored = {path.read_bytes() for path in (golden / "data" / "images").rglob("*.*")}
    assert {member.read() for member in index_archive(archive)} == stored  # the macOS twins are not among them


@pytest.mark.parametrize("name", ["images.zip", "images.tar.gz"])
def test_an_archive_that_is_cut_off_says_so(tmp_path: Path, pack_images: _PACK, name: str) -> None:
    archive = pack_images(tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(MmebError, match=f"{name} is cut off or damaged .* download it again"):
        list(index_archive(archive))
    assert not (tmp_path / "images.tar").exists()


def test_a_tar_that_is_cut_off_says_which_image_is_lost(tmp_path: Path, pack_images: _PACK) -> None:
    archive = pack_images(tmp_path / "images.tar")
    members = list(index_archive(archive))
    archive.write_bytes(archive.read_bytes()[:30_000])
    members[0].read()
    with pytest.raises(MmebError, match="the archive ends before it does"):
        members[-1].read()


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path, pack_images: _PACK) -> None:
    archive = pack_images(tmp_path / "images.zip")
    content = bytearray(archive.read_bytes())
    members = list(index_archive(archive))
    content[200] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(MmebError, match="the archive is damaged"):
        members[0].read()
    members[5].read()


def test_a_missing_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"images\.zip can't be read: No such file"):
        list(index_archive(tmp_path / "images.zip"))


def test_a_gzipped_tar_is_decompressed_once(tmp_path: Path, pack_images: _PACK) -> None:
    archive = pack_images(tmp_path / "mmeb.tar.gz")
    plain = plain_tar(archive)
    assert plain.read_bytes() == gzip.decompress(archive.read_bytes())
    made = plain.stat()
    assert plain_tar(archive) == plain
    assert (plain.stat().st_ino, plain.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
