import gzip
import stat
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mmeb.data.images.archives import plain_tar
from mmeb.data.images.image import MissingImage
from mmeb.data.images.index import Archive
from mmeb.data.images.store import ImageStore
from mmeb.errors import MmebError

_PACK = Callable[[Path], Path]


@pytest.mark.parametrize("name", ["images.zip", "images.tar", "images.tar.gz"])
def test_members_have_the_bytes_that_were_packed(tmp_path: Path, golden: Path, pack_images: _PACK, name: str) -> None:
    archive = pack_images(tmp_path / name)
    stored = {path.read_bytes() for path in (golden / "data" / "images").rglob("*.*")}
    assert {member.read() for member in Archive(archive)} == stored  # the macOS twins are not among them


@pytest.mark.parametrize("name", ["images.zip", "images.tar.gz"])
def test_an_archive_that_is_cut_off_says_so(tmp_path: Path, pack_images: _PACK, name: str) -> None:
    archive = pack_images(tmp_path / name)
    archive.write_bytes(archive.read_bytes()[:-1000])
    with pytest.raises(MmebError, match=f"{name} is cut off or damaged .* download it again"):
        list(Archive(archive))
    assert not (tmp_path / "images.tar").exists()


def test_a_tar_that_is_cut_off_says_which_image_is_lost(tmp_path: Path, pack_images: _PACK) -> None:
    archive = pack_images(tmp_path / "images.tar")
    members = list(Archive(archive))
    archive.write_bytes(archive.read_bytes()[:30_000])
    members[0].read()
    with pytest.raises(MmebError, match="the archive ends before it does"):
        members[-1].read()


def test_a_flipped_byte_in_a_zip_is_found(tmp_path: Path, pack_images: _PACK) -> None:
    archive = pack_images(tmp_path / "images.zip")
    content = bytearray(archive.read_bytes())
    members = list(Archive(archive))
    content[200] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(MmebError, match="the archive is damaged"):
        members[0].read()
    members[5].read()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_of_several_members_of_one_name_the_last_is_read_as_unpacking_leaves_it(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"images.{kind}"
    for content in (b"outdated", b"corrected"):
        (tmp_path / "a.png").write_bytes(content)
        if kind == "zip":
            with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of the duplicate name
                archive.write(tmp_path / "a.png", "MMEB/a.png")
        else:
            with tarfile.open(path, "a") as tar:
                tar.add(tmp_path / "a.png", "MMEB/a.png")
    store = ImageStore((Archive(path),))
    assert {store.find(name, "").read() for name in ("MMEB/a.png", "a.png")} == {b"corrected"}


def test_links_in_a_tar_are_the_files_that_they_stand_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "a.png")
    (tmp_path / "soft.png").symlink_to("deep/../hard.png")
    (tmp_path / "lost.png").symlink_to("../outside.png")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name in ("a.png", "hard.png", "soft.png", "lost.png"):
            tar.add(tmp_path / name, f"img/{name}")
    members = {image.name: image.read() for image in Archive(tmp_path / "images.tar")}
    assert members == dict.fromkeys(("img/a.png", "img/hard.png", "img/soft.png"), b"content")


def _tar(folder: Path, *arguments: str) -> None:
    subprocess.run(["tar", *arguments], cwd=folder, check=True)


def _in_archive(archive: Path, *names: str) -> list[bytes]:
    return [ImageStore((Archive(archive),)).find(name, "").read() for name in names]


def test_links_in_a_tar_of_the_folder_itself_are_found(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "a.png").write_bytes(b"content")
    (tmp_path / "img" / "soft.png").symlink_to("a.png")
    _tar(tmp_path / "img", "-cf", "../images.tar", ".")  # whose names start with "./"
    assert _in_archive(tmp_path / "images.tar", "a.png", "soft.png") == [b"content", b"content"]


def test_a_file_that_was_packed_twice_and_is_then_a_link_to_itself_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"content")
    (tmp_path / "b.png").hardlink_to(tmp_path / "a.png")
    _tar(tmp_path, "-cf", "images.tar", "a.png", "b.png", "a.png")
    assert _in_archive(tmp_path / "images.tar", "a.png", "b.png") == [b"content", b"content"]


def test_a_hard_link_keeps_its_content_when_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"first")
    (tmp_path / "b.png").hardlink_to(tmp_path / "a.png")
    _tar(tmp_path, "-cf", "images.tar", "a.png", "b.png")
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").write_bytes(b"second")
    _tar(tmp_path, "-rf", "images.tar", "a.png")
    assert _in_archive(tmp_path / "images.tar", "a.png", "b.png") == [b"second", b"first"]


def test_a_link_to_a_folder_of_a_tar_leads_to_its_files(tmp_path: Path) -> None:
    (tmp_path / "coco" / "deep").mkdir(parents=True)
    (tmp_path / "coco" / "deep" / "a.png").write_bytes(b"content")
    (tmp_path / "images").symlink_to("coco")
    _tar(tmp_path, "-cf", "images.tar", "coco", "images")
    assert _in_archive(tmp_path / "images.tar", "images/deep/a.png") == [b"content"]


def test_a_symbolic_link_in_a_zip_is_the_file_that_it_stands_for(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("img/a.png", b"content")
        for name, target in (("img/soft.png", "../img/a.png"), ("img/lost.png", "../outside.png")):
            link = zipfile.ZipInfo(name)
            link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
    assert _in_archive(tmp_path / "images.zip", "img/soft.png") == [b"content"]
    assert [image.name for image in Archive(tmp_path / "images.zip")] == ["img/a.png", "img/soft.png"]


@pytest.mark.parametrize(
    ("stored", "system", "flag", "name"),
    [
        ("img/é.png", 3, True, "img/é.png"),
        ("img/é.png", 3, False, "img/é.png"),  # UTF-8 without the flag that says so
        ("img\\a.png", 0, True, "img/a.png"),  # made on Windows
        ("img\\a.png", 3, True, "img\\a.png"),
    ],
)
def test_a_name_in_a_zip_is_the_one_that_unpacking_gives(
    tmp_path: Path, stored: str, system: int, flag: bool, name: str
) -> None:
    entry = zipfile.ZipInfo(stored)
    entry.create_system = system
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry, b"content")
    if not flag:
        content = bytearray(path.read_bytes())
        for record, flags in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # the member's header, and the directory's
            content[content.index(record) + flags] &= 0xF7
        path.write_bytes(content)
    assert _in_archive(path, name) == [b"content"]


def test_the_case_of_an_archives_extension_does_not_matter(tmp_path: Path, pack_images: _PACK) -> None:
    for name in ("images.zip", "mmeb.tar", "mmeb.tar.gz"):
        pack_images(tmp_path / name).rename(tmp_path / name.upper())
        store = ImageStore.within([tmp_path])
        assert not isinstance(store.find("set0/im000.png", ""), MissingImage)
        (tmp_path / name.upper()).unlink()


@pytest.mark.parametrize("layout", ["gnu", "posix"])
def test_a_sparse_member_of_a_tar_is_read_with_its_holes(tmp_path: Path, layout: str) -> None:
    with (tmp_path / "a.bmp").open("wb") as file:
        for start, content in ((0, b"start"), (1 << 20, b"middle"), (3 << 20, b"end")):
            file.seek(start)
            file.write(content)
    _tar(tmp_path, f"--format={layout}", "-Scf", "images.tar", "a.bmp")
    assert (tmp_path / "images.tar").stat().st_size < 1 << 20
    (member,) = Archive(tmp_path / "images.tar")
    assert member.read() == (tmp_path / "a.bmp").read_bytes()
    assert member.read().startswith(member.head())


def test_a_sparse_member_that_claims_more_than_an_image_has_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.bmp").open("wb") as file:
        file.truncate(1 << 42)
    _tar(tmp_path, "-Scf", "images.tar", "a.bmp")
    with pytest.raises(MmebError, match=r"a\.bmp can't be read .* as a decompression bomb would"):
        _in_archive(tmp_path / "images.tar", "a.bmp")


def test_a_missing_archive_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"images\.zip can't be read: No such file"):
        list(Archive(tmp_path / "images.zip"))


@pytest.mark.parametrize("name", ["mmeb.tar.gz", "mmeb.tgz"])
def test_a_gzipped_tar_is_decompressed_once(tmp_path: Path, pack_images: _PACK, name: str) -> None:
    archive = pack_images(tmp_path / "mmeb.tar.gz").rename(tmp_path / name)
    plain = plain_tar(archive)
    assert plain == tmp_path / "mmeb.tar"
    assert plain.read_bytes() == gzip.decompress(archive.read_bytes())
    made = plain.stat()
    assert plain_tar(archive) == plain
    assert (plain.stat().st_ino, plain.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
