"""MMEB-train's rows as pairs of Items."""

import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmeb.data.item import Role
from mmeb.data.train.dataset import TrainSubset, open_train
from mmeb.demo import demo_folder
from mmeb.errors import MmebError
from mmeb.tasks import Modality
from mmeb.tasks.train_subsets import TRAIN_SUBSETS

_ROW = {
    "qry": "<|image_1|>\nRepresent the given image for classification\n",
    "qry_image_path": "images/ImageNet_1K/Train/a.jpg",
    "pos_text": "fish",
    "pos_image_path": "",
    "neg_text": "",
    "neg_image_path": "",
}


def _demo(subset: str, **options: Any) -> TrainSubset:
    return open_train("demo", [subset], **options)[0]


def _write(folder: Path, *rows: dict[str, str], name: str = "original-00000-of-00001.parquet") -> None:
    """Rows of ImageNet_1K: `_ROW` with changes."""
    (folder / "ImageNet_1K").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([{**_ROW, **row} for row in rows]), folder / "ImageNet_1K" / name)


def _open(folder: Path, **options: Any) -> TrainSubset:
    return open_train(folder, ["ImageNet_1K"], **options)[0]


def test_all_are_the_twenty_training_subsets() -> None:
    assert tuple(subset.name for subset in open_train("demo")) == TRAIN_SUBSETS
    assert len(TRAIN_SUBSETS) == 20


def test_a_pair_holds_what_the_row_says() -> None:
    pair = _demo("CIRR")[0]
    (positive,) = pair.positives
    assert (pair.query.role, positive.role) == (Role.QUERY, Role.CANDIDATE)
    assert pair.query.modality is Modality.IMAGE_TEXT
    assert pair.query.instruction.startswith("Given an image, find a similar everyday image")
    assert pair.query.text
    assert positive.prompt == "<|image_1|>\nRepresent the given image.\n"
    assert len(pair.negatives) == 1
    assert pair.negatives[0] != positive


@pytest.mark.parametrize("subset", TRAIN_SUBSETS)
def test_instruction_and_text_are_told_apart(subset: str) -> None:
    pair = _demo(subset)[0]
    assert pair.query.instruction
    assert pair.query.instruction not in pair.query.text


@pytest.mark.parametrize("subset", TRAIN_SUBSETS)
def test_every_image_of_the_demo_is_read_out_of_its_zip(subset: str) -> None:
    pairs = _demo(subset)[:3]
    images = [item.image for pair in pairs for item in (pair.query, *pair.positives, *pair.negatives) if item.image]
    assert all(f"images_zip/{subset}.zip" in image.key for image in images)
    assert all(image.rgb().size[0] > 8 for image in images)


def test_a_subset_is_a_sequence() -> None:
    subset = _demo("CIRR")
    assert [pair.query for pair in subset][-1] == subset[-1].query == subset[len(subset) - 1].query
    assert [pair.query for pair in subset[2:4]] == [subset[2].query, subset[3].query]
    with pytest.raises(IndexError):
        subset[len(subset)]


def test_a_subset_can_be_sent_to_a_worker_process() -> None:
    subset = _demo("CIRR", limit=5)
    assert subset[0].query.image is not None  # the archive is open
    copy = pickle.loads(pickle.dumps(subset))
    assert list(copy) == list(subset)
    image = copy[4].query.image
    assert image is not None
    assert image.rgb().size[0] > 8


def test_target_ids_are_equal_where_the_positives_are() -> None:
    for name in ("SUN397", "CIRR", "WebQA"):
        subset = _demo(name)
        numbers: dict[Any, int] = {}
        known = [numbers.setdefault(pair.positives[0], number) for number, pair in enumerate(subset)]
        ids: dict[int, int] = {}
        assert [ids.setdefault(key, number) for number, key in enumerate(subset.target_ids.tolist())] == known


def test_images_that_were_unpacked_are_read_as_files(tmp_path: Path) -> None:
    _write(tmp_path / "MMEB-train", {})
    for top in (tmp_path / "MMEB-train", tmp_path):
        place = top / "images" / "ImageNet_1K" / "Train"
        place.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(place / "a.jpg")
        image = _open(tmp_path)[0].query.image
        assert image is not None
        assert image.rgb().size == (8, 8)
        shutil.rmtree(top / "images")


@pytest.mark.parametrize("prefix", ["", "images/", "./"])
def test_an_archive_may_put_a_folder_around_its_images(tmp_path: Path, prefix: str) -> None:
    _write(tmp_path, {})
    Image.new("RGB", (8, 8)).save(tmp_path / "any.jpg")
    (tmp_path / "images_zip").mkdir()
    with zipfile.ZipFile(tmp_path / "images_zip" / "ImageNet_1K.zip", "w") as archive:
        archive.writestr(f"{prefix}ImageNet_1K/Train/._a.jpg", b"a macOS twin")
        archive.write(tmp_path / "any.jpg", f"{prefix}ImageNet_1K/Train/a.jpg")
    image = _open(tmp_path)[0].query.image
    assert image is not None
    assert image.rgb().size == (8, 8)


def test_a_limit_draws_rows_by_the_seed_and_keeps_their_order() -> None:
    every = [pair.query for pair in _demo("NIGHTS")]
    some = [pair.query for pair in _demo("NIGHTS", limit=20, seed=1)]
    assert some == [pair.query for pair in _demo("NIGHTS", limit=20, seed=1)]
    assert some != [pair.query for pair in _demo("NIGHTS", limit=20, seed=2)]
    places = [every.index(query) for query in some]
    assert places == sorted(places)
    assert places != list(range(20))


def test_a_row_keeps_its_number_in_the_data_under_a_limit() -> None:
    every, some = _demo("NIGHTS"), _demo("NIGHTS", limit=5, seed=1)
    for row in range(5):
        number = int(some.origin(row).removeprefix("NIGHTS, row "))
        assert every[number].query == some[row].query
        assert every.origin(number) == some.origin(row)


def test_the_fingerprint_tells_the_rows_and_the_cap(tmp_path: Path) -> None:
    original, again = _demo("VOC2007").fingerprint, _demo("VOC2007").fingerprint
    shutil.copytree(demo_folder() / "MMEB-train", tmp_path / "copy")
    assert original == again == open_train(tmp_path / "copy", ["VOC2007"])[0].fingerprint
    others = [
        _demo("VOC2007", limit=100),
        _demo("VOC2007", limit=100, seed=1),
        _demo("VOC2007", split="diverse_instruction"),
    ]
    assert len({original, *(other.fingerprint for other in others)}) == 4


def test_shards_are_read_in_order_as_one_file(tmp_path: Path) -> None:
    texts = [f"fish {number}" for number in range(6)]
    _write(tmp_path / "one", *({"pos_text": text, "qry_image_path": ""} for text in texts))
    for shard in range(3):
        rows = [{"pos_text": text, "qry_image_path": ""} for text in texts[2 * shard : 2 * shard + 2]]
        _write(tmp_path / "three", *rows, name=f"original-0000{shard}-of-00003.parquet")
    assert [pair.positives[0].text for pair in _open(tmp_path / "three")] == texts
    assert _open(tmp_path / "three").fingerprint == _open(tmp_path / "one").fingerprint
    (tmp_path / "three" / "ImageNet_1K" / "original-00001-of-00003.parquet").unlink()
    with pytest.raises(MmebError, match=r"no original-\*\.parquet, or not all parts of it"):
        _open(tmp_path / "three")


def test_the_older_split_beside_them_is_left_alone(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": ""})
    _write(tmp_path, {"qry_image_path": "", "pos_text": "bird"}, name="train-00000-of-00001.parquet")
    assert [pair.positives[0].text for pair in _open(tmp_path)] == ["fish"]
    with pytest.raises(MmebError, match="no split 'train'"):
        _open(tmp_path, split="train")


def test_a_folder_knows_where_it_is_from(tmp_path: Path) -> None:
    assert _demo("CIRR").source.kind == "demo"
    _write(tmp_path, {"qry_image_path": ""})
    assert (_open(tmp_path).source.kind, _open(tmp_path).source.repository) == ("folder", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ImageNet-1K", r"did you mean ImageNet_1K\?"),
        ("ok_vqa", r"did you mean OK-VQA\?"),
        ("ChartQ", r"did you mean ChartQA"),
        ("GQA", "GQA is out of distribution in MMEB: models are scored on it and may not be trained on it"),
        ("FashionIQ", "out of distribution .*; early revisions of MMEB-train held it by mistake"),
        ("ImageNet_R", "out of distribution .*; early revisions of MMEB-train held it by mistake"),
        ("CIFAR_100", "CIFAR_100 is not one of MMEB-train's 20 subsets; early revisions of MMEB-train held it"),
        ("zzz", r"no training subset 'zzz': there are ImageNet_1K, N24News, .*, MSCOCO\."),
        (" ", "No training subset was named"),
    ],
)
def test_only_the_twenty_training_subsets_are_taken(name: str, reason: str) -> None:
    with pytest.raises(MmebError, match=reason):
        open_train("demo", [name])


def test_an_out_of_distribution_subset_in_the_folder_is_not_touched(tmp_path: Path) -> None:
    for name in TRAIN_SUBSETS[:2]:
        shutil.copytree(demo_folder() / "MMEB-train" / name, tmp_path / name)
    shutil.copytree(tmp_path / TRAIN_SUBSETS[0], tmp_path / "ImageNet-A")
    with pytest.raises(MmebError, match="ImageNet-A is out of distribution"):
        open_train(tmp_path, ["ImageNet-A"])


def test_a_missing_image_is_named_with_its_row_when_it_is_read(tmp_path: Path) -> None:
    _write(tmp_path, {}, {"qry_image_path": "images/ImageNet_1K/Train/b.jpg"})
    place = tmp_path / "images" / "ImageNet_1K" / "Train"
    place.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "a.jpg")
    image = _open(tmp_path)[1].query.image
    assert image is not None
    for read in (image.rgb, image.size):
        with pytest.raises(
            MmebError, match=r"ImageNet_1K, row 1: the image images/ImageNet_1K/Train/b\.jpg is missing"
        ):
            read()


def test_images_that_are_not_there_at_all_are_said_at_once(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": "", "qry": "a text"}, {})
    with pytest.raises(MmebError, match=r"row 1: the image images/ImageNet_1K/Train/a\.jpg is missing"):
        _open(tmp_path)
    (tmp_path / "images_zip").mkdir()
    (tmp_path / "images_zip" / "ImageNet_1K.zip").write_bytes(b"half a zip")
    with pytest.raises(MmebError, match=r"ImageNet_1K\.zip is cut off or damaged: delete it"):
        _open(tmp_path)


def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": "../a.jpg"})
    with pytest.raises(MmebError, match=r"row 0: the image path '\.\./a\.jpg' leaves the folder"):
        _open(tmp_path)


@pytest.mark.parametrize(("side", "name"), [("qry", "query"), ("pos_text", "positive")])
def test_a_row_without_query_or_positive_is_an_error_or_counted(tmp_path: Path, side: str, name: str) -> None:
    whole = {"qry_image_path": ""}
    _write(tmp_path, whole, {**whole, side: ""}, whole, {**whole, side: ""})
    with pytest.raises(MmebError, match=rf"ImageNet_1K, row 1: there is no {name} \(2 of 4 rows .*--skip-bad-rows"):
        _open(tmp_path)
    subset = _open(tmp_path, skip_bad_rows=True)
    assert (len(subset), subset.skipped, subset.origin(1)) == (2, 2, "ImageNet_1K, row 2")
    _write(tmp_path, {**whole, side: ""})
    with pytest.raises(MmebError, match=f"there is no {name}"):
        _open(tmp_path, skip_bad_rows=True)


def test_a_row_without_negative_has_none(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": ""})
    assert _open(tmp_path)[0].negatives == ()


def test_a_prompt_with_two_placeholders_is_named_with_its_row(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": ""}, {"qry": "<|image_1|> and <|image_1|>", "qry_image_path": ""})
    with pytest.raises(MmebError, match=r"ImageNet_1K, row 1: A prompt may hold one <\|image_1\|>"):
        _open(tmp_path)[1]


def test_a_missing_split_or_subset_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="no training rows of CIRR: it does not hold MMEB-train"):
        open_train(tmp_path, ["CIRR"])
    _write(tmp_path, {"qry_image_path": ""})
    with pytest.raises(MmebError, match="no training rows of N24News: it has ImageNet_1K, which --subsets can name"):
        open_train(tmp_path)
    with pytest.raises(MmebError, match=r"no diverse_instruction-\*\.parquet"):
        _open(tmp_path, split="diverse_instruction")


@pytest.mark.parametrize("data", ["nowhere", "rows.csv", "", "nowhere/rows.jsonl"])
def test_data_that_is_not_there_is_said_plainly(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MmebError, match=r"--data (takes hub, demo, a folder, or \.jsonl and \.parquet|names)"):
        open_train(data)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    _write(tmp_path, {"qry_image_path": ""})
    (tmp_path / "ImageNet_1K" / "original-00000-of-00001.parquet").write_bytes(b"no parquet")
    with pytest.raises(MmebError, match="cut off or damaged"):
        _open(tmp_path)
