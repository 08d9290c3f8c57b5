import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmeb.data.images.image import MissingImage
from mmeb.data.images.store import ImageStore
from mmeb.errors import MmebError

_PATH = "set0/im000.png"


@pytest.mark.parametrize("wrapping", ["", "MMEB/", "images/", "eval_images/", "image-tasks/MMEB/"])
@pytest.mark.parametrize("asked", [_PATH, f"MMEB/{_PATH}", f"images/{_PATH}", f"./{_PATH}"])
@pytest.mark.parametrize("kind", ["folder", "images.zip", "mmeb_v1.tar"])
def test_images_are_found_whatever_folders_a_release_wraps_around_them(
    tmp_path: Path, golden: Path, pack_images: Callable[[Path, str], Path], kind: str, asked: str, wrapping: str
) -> None:
    if kind == "folder":
        shutil.copytree(golden / "data" / "images", tmp_path / wrapping, dirs_exist_ok=True)
    else:
        pack_images(tmp_path / kind, wrapping)
    image = ImageStore.within([tmp_path, tmp_path / "image-tasks"]).find(asked, "CIRR, row 0")
    assert image.read() == (golden / "data" / "images" / _PATH).read_bytes()
    assert image.origin == "CIRR, row 0"


def test_an_image_that_is_not_there_says_so_when_it_is_read(official: Path) -> None:
    image = ImageStore.within([official]).find("set0/gone.png", "CIRR, row 3")
    assert isinstance(image, MissingImage)
    for read in (image.rgb, image.size):
        with pytest.raises(
            MmebError, match=r"CIRR, row 3: the image set0/gone\.png is missing \(looked for in .*official"
        ):
            read()


def test_a_macos_twin_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "._im.png").write_bytes(b"")
    assert isinstance(ImageStore.within([tmp_path]).find("._im.png", ""), MissingImage)


def test_the_path_as_written_goes_before_the_unwrapped_one(tmp_path: Path) -> None:
    (tmp_path / "MMEB").mkdir()
    (tmp_path / "MMEB" / "a.png").write_bytes(b"inner")
    (tmp_path / "a.png").write_bytes(b"outer")
    store = ImageStore.within([tmp_path])
    found = {name: store.find(name, "") for name in ("MMEB/a.png", "a.png")}
    assert {name: image.read() for name, image in found.items()} == {"MMEB/a.png": b"inner", "a.png": b"outer"}


@pytest.mark.parametrize("path", ["../secret.png", "set0/../../secret.png", "/etc/passwd", "C:\\x.png", "..\\x.png"])
def test_a_path_that_leaves_the_folder_is_refused(official: Path, path: str) -> None:
    with pytest.raises(MmebError, match=r"NIGHTS, row 4: the image path .* leaves the folder"):
        ImageStore.within([official]).find(path, "NIGHTS, row 4")


def test_a_plain_tar_is_used_instead_of_the_gzipped_one_beside_it(
    tmp_path: Path, pack_images: Callable[[Path], Path]
) -> None:
    pack_images(tmp_path / "mmeb_v1.tar")
    (tmp_path / "mmeb_v1.tar.gz").write_bytes(b"not needed any more")
    assert not isinstance(ImageStore.within([tmp_path]).find(_PATH, ""), MissingImage)
