import pickle
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmeb.data.images.archives import ZipImage
from mmeb.data.images.image import HEAD_BYTES, FileImage, ImageRef
from mmeb.data.images.index import Archive
from mmeb.errors import MmebError

_GRADIENT = np.add.outer(np.arange(40), 3 * np.arange(60)).astype(np.uint8)
_PLACES = ("folder", "zip", "tar")


def _picture(kind: str) -> tuple[Image.Image, str, dict[str, object]]:
    gray = Image.fromarray(_GRADIENT)
    color = Image.merge("RGB", (gray, gray.rotate(180), gray.transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    alpha = color.copy()
    alpha.putalpha(gray)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    kinds: dict[str, tuple[Image.Image, str, dict[str, object]]] = {
        "grayscale": (gray, "png", {}),
        "grayscale with alpha": (alpha.convert("LA"), "png", {}),
        "palette": (color.quantize(16), "png", {}),
        "palette with transparency": (color.quantize(16), "png", {"transparency": 3}),
        "bilevel": (gray.convert("1"), "png", {}),
        "RGBA": (alpha, "png", {}),
        "CMYK": (color.convert("CMYK"), "jpeg", {}),
        "16-bit": (Image.fromarray(_GRADIENT.astype(np.uint16) * 200), "png", {}),
        "EXIF-rotated": (color, "jpeg", {"exif": exif}),
    }
    return kinds[kind]


_KINDS = (
    "grayscale",
    "grayscale with alpha",
    "palette",
    "palette with transparency",
    "bilevel",
    "RGBA",
    "CMYK",
    "16-bit",
    "EXIF-rotated",
)


def _placed(file: Path, place: str) -> ImageRef:
    """A reference to the file where it lies, or in an archive."""
    if place == "folder":
        return FileImage(file, "CIRR, row 3")
    archive = file.with_suffix(f".{place}")
    if place == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            target.write(file, "a/b.png")
    else:
        with tarfile.open(archive, "w") as tar:
            tar.add(file, "a/b.png")
    (member,) = Archive(archive)
    return replace(member, origin="CIRR, row 3")


@pytest.mark.parametrize("place", _PLACES)
@pytest.mark.parametrize("kind", _KINDS)
def test_an_image_comes_out_as_the_reference_gets_it(tmp_path: Path, kind: str, place: str) -> None:
    picture, form, options = _picture(kind)
    file = tmp_path / "picture"
    picture.save(file, form, **options)
    image = _placed(file, place)
    with Image.open(file) as plain:
        np.testing.assert_array_equal(np.asarray(image.rgb()), np.asarray(plain.convert("RGB")))
        assert image.size() == plain.size
    assert "transparency" not in image.rgb().info


@pytest.mark.parametrize("place", _PLACES)
def test_the_size_of_a_large_image_is_read_from_its_first_bytes(tmp_path: Path, place: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "picture", "png")
    image = _placed(tmp_path / "picture", place)
    assert len(image.head()) <= HEAD_BYTES < len(image.read())
    assert image.size() == (200, 300)


@pytest.mark.parametrize("place", _PLACES)
def test_a_truncated_image_is_an_error_that_names_row_and_file(tmp_path: Path, place: str) -> None:
    picture, form, _ = _picture("RGBA")
    file = tmp_path / "picture"
    picture.save(file, form)
    file.write_bytes(file.read_bytes()[:-200])
    image = _placed(file, place)
    with pytest.raises(MmebError, match=r"CIRR, row 3: .*(picture|b\.png) can't be decoded"):
        image.rgb()


def test_a_missing_file_is_an_error_that_names_row_and_file(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"NIGHTS, row 7: .*gone\.png can't be read"):
        FileImage(tmp_path / "gone.png", "NIGHTS, row 7").rgb()


@pytest.mark.parametrize("place", _PLACES)
def test_a_decompression_bomb_is_refused(tmp_path: Path, place: str) -> None:
    file = tmp_path / "picture"
    Image.new("1", (20_000, 10_000)).save(file, "png")
    assert file.stat().st_size < 100_000
    image = _placed(file, place)
    with pytest.raises(MmebError, match=r"CIRR, row 3: .* decompression bomb"):
        image.rgb()
    with pytest.raises(MmebError, match="decompression bomb"):
        image.size()


def test_an_archive_member_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    _picture("RGBA")[0].save(tmp_path / "picture", "png")
    member = _placed(tmp_path / "picture", "zip")
    assert isinstance(member, ZipImage)
    with pytest.raises(MmebError, match="unpacks to 4,294,967,295 bytes, as a decompression bomb would"):
        replace(member, length=2**32 - 1).read()


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_several_processes_read_one_archive_at_once(
    tmp_path: Path, pack_images: Callable[[Path], Path], start: str
) -> None:
    members = list(Archive(pack_images(tmp_path / "images.zip")))
    members[0].read()  # so that a forked worker has a parent that has read before
    here = [member.read() for member in members]
    with ProcessPoolExecutor(3, mp_context=get_context(start)) as pool:
        assert list(pool.map(ZipImage.read, members)) == here


def test_references_are_equal_where_they_name_the_same_file(tmp_path: Path) -> None:
    first, second = FileImage(tmp_path / "a.png", "row 1"), FileImage(tmp_path / "a.png", "row 2")
    assert first == second == pickle.loads(pickle.dumps(first))
    assert len({first, second, FileImage(tmp_path / "b.png")}) == 2
