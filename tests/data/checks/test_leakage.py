"""Evaluation images among training images."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from mmeb.data.checks.leakage import Leak, LeakageReport, Match, find_leakage
from mmeb.data.part import Part, Source
from mmeb.data.source import open_source
from mmeb.data.train.dataset import open_train
from mmeb.demo import demo_folder
from mmeb.tasks import get_task

_TASK = get_task("VOC2007")
_IMAGE = "VOC2007/00003.jpg"


@pytest.fixture
def evaluation() -> Source:
    return open_source("demo")


@pytest.fixture
def photo(evaluation: Source) -> bytes:
    """One of the evaluation images, as a file."""
    return evaluation.images(Part.of_task(get_task("VOC2007"))).find(_IMAGE, "test").read()


def _encoded(change: Callable[[Image.Image], Image.Image], photo: bytes, kind: str, **options: int) -> bytes:
    content = io.BytesIO()
    change(Image.open(io.BytesIO(photo)).convert("RGB")).save(content, kind, **options)
    return content.getvalue()


def _search(folder: Path, evaluation: Source, *contents: bytes, exact: bool = False, workers: int = 0) -> LeakageReport:
    """Look for VOC2007's evaluation images among images of these contents."""
    rows = []
    for number, content in enumerate(contents):
        (folder / f"{number}.img").write_bytes(content)
        rows.append({"qry": "", "qry_image_path": f"{number}.img", "pos_text": "a"})
    (folder / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return find_leakage(open_train(folder / "own.jsonl"), [_TASK], evaluation, exact=exact, workers=workers)


def _same(image: Image.Image) -> Image.Image:
    return image


def test_a_copy_of_the_file_is_found(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    assert _search(tmp_path, evaluation, photo).leaks == (Leak("VOC2007", _IMAGE, "own", "0.img", Match.BYTES),)


def test_the_same_pixels_in_another_file_are_found(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    (leak,) = _search(tmp_path, evaluation, _encoded(_same, photo, "PNG")).leaks
    assert (leak.image, leak.match) == (_IMAGE, Match.PIXELS)


@pytest.mark.parametrize("quality", [85, 50])
def test_a_recompressed_image_is_found(tmp_path: Path, evaluation: Source, photo: bytes, quality: int) -> None:
    (leak,) = _search(tmp_path, evaluation, _encoded(_same, photo, "JPEG", quality=quality)).leaks
    assert (leak.image, leak.match) == (_IMAGE, Match.NEAR)


@pytest.mark.parametrize("size", [0.7, 1.5, 2])
def test_a_resized_image_is_found(tmp_path: Path, evaluation: Source, photo: bytes, size: float) -> None:
    def resized(image: Image.Image) -> Image.Image:
        return image.resize((round(image.width * size), round(image.height * size)))

    (leak,) = _search(tmp_path, evaluation, _encoded(resized, photo, "JPEG", quality=80)).leaks
    assert (leak.image, leak.match) == (_IMAGE, Match.NEAR)


def test_only_what_is_exactly_equal_is_found_when_asked_for(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    contents = (photo, _encoded(_same, photo, "PNG"), _encoded(_same, photo, "JPEG", quality=85))
    leaks = _search(tmp_path, evaluation, *contents, exact=True).leaks
    assert [leak.match for leak in leaks] == [Match.BYTES, Match.PIXELS]


def test_other_images_are_no_leak(evaluation: Source) -> None:
    train = open_train("demo", ["VOC2007", "CIRR"], limit=40)
    report = find_leakage(train, [_TASK, get_task("CIRR")], evaluation, workers=0)
    assert (report.leaks, report.unreadable) == ((), ())
    assert report.train_images > 80
    assert set(report.images) == {"VOC2007", "CIRR"}
    assert min(report.images.values()) >= 60


def test_a_flipped_or_recoloured_image_is_another_one(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    def flipped(image: Image.Image) -> Image.Image:
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    def recoloured(image: Image.Image) -> Image.Image:
        red, green, blue = image.split()
        return Image.merge("RGB", (blue, red, green))

    contents = [_encoded(change, photo, "PNG") for change in (flipped, recoloured)]
    assert _search(tmp_path, evaluation, *contents).leaks == ()


def test_plain_grounds_are_not_near_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "MMEB-eval"
    (folder / "VOC2007").mkdir(parents=True)
    row = {"qry_text": "<|image_1|>", "qry_img_path": "VOC2007/plain.png", "tgt_text": ["a", "b"], "tgt_img_path": []}
    (folder / "VOC2007.jsonl").write_text(json.dumps(row))
    Image.new("RGB", (60, 60), (200, 200, 200)).save(folder / "VOC2007" / "plain.png")
    other = io.BytesIO()
    Image.new("RGB", (90, 90), (201, 200, 200)).save(other, "PNG")
    assert _search(tmp_path, open_source(folder), other.getvalue()).leaks == ()


def test_an_image_that_cannot_be_read_is_said(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    report = _search(tmp_path, evaluation, photo, photo[:40])
    assert len(report.leaks) == 1
    (sentence,) = report.unreadable
    assert sentence.startswith("own: ")
    assert "1.img can't be decoded" in sentence


def test_several_processes_find_the_same(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    contents = [photo] * 70 + [photo[:40]]
    alone = _search(tmp_path, evaluation, *contents)
    assert len(alone.leaks) == 70
    assert _search(tmp_path, evaluation, *contents, workers=2) == alone


def test_images_are_read_out_of_the_subsets_zip(tmp_path: Path, evaluation: Source, photo: bytes) -> None:
    source = demo_folder() / "MMEB-train"
    shutil.copytree(source / "VOC2007", tmp_path / "VOC2007")
    (tmp_path / "images_zip").mkdir()
    with (
        zipfile.ZipFile(source / "images_zip" / "VOC2007.zip") as archive,
        zipfile.ZipFile(tmp_path / "images_zip" / "VOC2007.zip", "w") as target,
    ):
        for name in archive.namelist():
            target.writestr(name, photo if name.endswith("/00007.jpg") else archive.read(name))
    (leak,) = find_leakage(open_train(tmp_path, ["VOC2007"]), [_TASK], evaluation, exact=True, workers=2).leaks
    assert (leak.subset, leak.train_image) == ("VOC2007", "images/VOC2007/Train/00007.jpg")
