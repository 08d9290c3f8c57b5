"""MMEB-train's rows as pairs of Items."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmeb.data.demo import demo_folder
from mmeb.data.item import Role
from mmeb.data.train import TRAIN_SUBSETS, load_train
from mmeb.errors import MmebError
from mmeb.tasks import Modality


def _rows(path: Path, **changed: str) -> None:
    row = {
        "qry": "<|image_1|>\nRepresent the given image for classification\n",
        "qry_image_path": "images/ImageNet_1K/Train/a.jpg",
        "pos_text": "fish",
        "pos_image_path": "",
        "neg_text": "",
        "neg_image_path": "",
    }
    path.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([{**row, **changed}]), path / "original-00000-of-00001.parquet")


def test_a_pair_holds_what_the_row_says() -> None:
    pair = load_train("CIRR", demo_folder(), limit=1)[0]
    assert (pair.query.role, pair.positive.role) == (Role.QUERY, Role.CANDIDATE)
    assert pair.query.modality is Modality.IMAGE_TEXT
    assert pair.query.instruction.startswith("Given an image, find a similar everyday image")
    assert pair.query.text
    assert pair.positive.prompt == "<|image_1|>\nRepresent the given image.\n"
    assert len(pair.negatives) == 1
    assert pair.negatives[0] != pair.positive


@pytest.mark.parametrize("subset", TRAIN_SUBSETS)
def test_every_image_of_the_demo_is_read_out_of_its_zip(subset: str) -> None:
    pairs = load_train(subset, demo_folder(), limit=3)
    images = [item.image for pair in pairs for item in (pair.query, pair.positive, *pair.negatives) if item.image]
    assert all(f"images_zip/{subset}.zip" in image.key for image in images)
    assert all(image.rgb().size[0] > 8 for image in images)


def test_images_that_were_unpacked_are_read_as_files(tmp_path: Path) -> None:
    _rows(tmp_path / "ImageNet_1K")
    place = tmp_path / "images" / "ImageNet_1K" / "Train"
    place.mkdir(parents=True)
    shutil.copy(_any_jpeg(tmp_path), place / "a.jpg")
    image = load_train("ImageNet_1K", tmp_path)[0].query.image
    assert image is not None
    assert image.rgb().size == (8, 8)


def _any_jpeg(folder: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(folder / "any.jpg")
    return folder / "any.jpg"


def test_a_limit_draws_rows_by_the_seed_and_keeps_their_order() -> None:
    every = [pair.query for pair in load_train("NIGHTS", demo_folder())]
    some = [pair.query for pair in load_train("NIGHTS", demo_folder(), limit=20, seed=1)]
    assert some == [pair.query for pair in load_train("NIGHTS", demo_folder(), limit=20, seed=1)]
    assert some != [pair.query for pair in load_train("NIGHTS", demo_folder(), limit=20, seed=2)]
    places = [every.index(query) for query in some]
    assert places == sorted(places)
    assert places != list(range(20))


@pytest.mark.parametrize("name", ["FashionIQ", "ImageNet-1K", "CIFAR_100"])
def test_only_the_twenty_training_subsets_are_taken(name: str) -> None:
    with pytest.raises(MmebError, match="not one of MMEB-train's 20 subsets"):
        load_train(name, demo_folder())


def test_a_missing_image_is_named_with_its_row(tmp_path: Path) -> None:
    _rows(tmp_path / "ImageNet_1K")
    with pytest.raises(MmebError, match=r"ImageNet_1K, row 0: its image images/ImageNet_1K/Train/a\.jpg is missing"):
        load_train("ImageNet_1K", tmp_path)


def test_a_row_without_positive_is_an_error(tmp_path: Path) -> None:
    _rows(tmp_path / "ImageNet_1K", pos_text="", qry_image_path="")
    with pytest.raises(MmebError, match="row 0: there is no positive"):
        load_train("ImageNet_1K", tmp_path)


def test_a_row_without_negative_has_none(tmp_path: Path) -> None:
    _rows(tmp_path / "ImageNet_1K", qry_image_path="")
    assert load_train("ImageNet_1K", tmp_path)[0].negatives == ()


def test_a_missing_split_or_subset_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="no training rows of CIRR"):
        load_train("CIRR", tmp_path)
    _rows(tmp_path / "ImageNet_1K")
    with pytest.raises(MmebError, match="no diverse_instruction"):
        load_train("ImageNet_1K", tmp_path, split="diverse_instruction")
    with pytest.raises(MmebError, match="no split 'train'"):
        load_train("ImageNet_1K", tmp_path, split="train")
