"""Custom training rows, JSONL or parquet."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from mmeb.data.train.dataset import TrainSubset, open_train
from mmeb.errors import MmebError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the images a.jpg, b.jpg and c.jpg in `photos/`."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (8 + number, 8)).save(tmp_path / "photos" / f"{name}.jpg")
    return tmp_path


def _write(path: Path, *rows: dict[str, Any]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pd.DataFrame(list(rows)).to_parquet(path)
    return path


def _open(path: Path, **options: Any) -> TrainSubset:
    return open_train(path, **options)[0]


def _sides(subset: TrainSubset, row: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Texts and file names of a row's positives and negatives."""
    pair = subset[row]

    def plain(items: tuple[Any, ...]) -> list[tuple[str, str]]:
        return [(item.text, Path(item.image.key).name if item.image else "") for item in items]

    return plain(pair.positives), plain(pair.negatives)


@pytest.mark.parametrize("name", ["signs.jsonl", "signs.parquet"])
def test_a_file_is_a_subset_of_its_name(folder: Path, name: str) -> None:
    subset = _open(
        _write(folder / name, {"qry": "<|image_1|>\nWhich sign?", "qry_image_path": "photos/a.jpg", "pos_text": "stop"})
    )
    assert (subset.name, len(subset), subset.source.kind) == ("signs", 1, "file")
    assert subset[0].query.prompt == "<|image_1|>\nWhich sign?"
    assert _sides(subset, 0) == ([("stop", "")], [])


def test_images_are_looked_for_beside_the_file_or_at_an_absolute_path(folder: Path, tmp_path: Path) -> None:
    (folder / "deep").mkdir()
    paths = ["../photos/a.jpg", str(folder / "photos" / "b.jpg")]
    rows = [{"qry": "", "qry_image_path": path, "pos_text": "x"} for path in paths]
    images = [pair.query.image for pair in _open(_write(folder / "deep" / "signs.jsonl", *rows))]
    assert [image.rgb().size for image in images if image] == [(8, 8), (9, 8)]


@pytest.mark.parametrize("name", ["own.jsonl", "own.parquet"])
def test_a_row_may_have_several_positives_and_negatives(folder: Path, name: str) -> None:
    rows = [
        {"qry": "q", "pos_text": ["a", "b"], "pos_image_path": [], "neg_text": ["c", "d", "e"]},
        {"qry": "q", "pos_text": ["a"], "pos_image_path": ["photos/a.jpg"], "neg_text": []},
        {"qry": "q", "pos_text": ["a", ""], "pos_image_path": ["", "photos/b.jpg"], "neg_text": [""]},
    ]
    subset = _open(_write(folder / name, *rows))
    assert _sides(subset, 0) == ([("a", ""), ("b", "")], [("c", ""), ("d", ""), ("e", "")])
    assert _sides(subset, 1) == ([("a", "a.jpg")], [])
    assert _sides(subset, 2) == ([("a", ""), ("", "b.jpg")], [])


def test_a_lone_text_goes_with_each_of_several_images(folder: Path) -> None:
    row = {"qry": "q", "pos_text": "Represent it.", "pos_image_path": ["photos/a.jpg", "photos/b.jpg"]}
    assert _sides(_open(_write(folder / "own.jsonl", row)), 0)[0] == [
        ("Represent it.", "a.jpg"),
        ("Represent it.", "b.jpg"),
    ]


def test_a_lone_string_and_a_list_may_stand_in_one_column(folder: Path) -> None:
    rows = [{"qry": "q", "pos_text": text} for text in ("a", ["b", "c"], ["d"])]
    subset = _open(_write(folder / "own.jsonl", *rows))
    assert [_sides(subset, row)[0] for row in range(3)] == [[("a", "")], [("b", ""), ("c", "")], [("d", "")]]


def test_nulls_are_empty_and_other_columns_are_left_alone(folder: Path) -> None:
    row = {"id": 7, "qry": "q", "qry_image_path": None, "pos_text": "a", "neg_text": None}
    subset = _open(_write(folder / "own.jsonl", row))
    assert _sides(subset, 0) == ([("a", "")], [])


def test_several_files_are_several_subsets(folder: Path) -> None:
    row = {"qry": "q", "pos_text": "a"}
    one, two = _write(folder / "one.jsonl", row), _write(folder / "two.parquet", row, row)
    assert [(subset.name, len(subset)) for subset in open_train(f"{one},{two}")] == [("one", 1), ("two", 2)]
    assert [subset.name for subset in open_train(f"{one},{two}", ["two"])] == ["two"]
    assert [subset.name for subset in open_train(f"demo, {one}", ["one", "CIRR"])] == ["CIRR", "one"]


def test_a_name_that_is_there_twice_or_is_the_benchmarks_is_refused(folder: Path) -> None:
    row = {"qry": "q", "pos_text": "a"}
    (folder / "deep").mkdir()
    one, again = _write(folder / "one.jsonl", row), _write(folder / "deep" / "one.jsonl", row)
    with pytest.raises(MmebError, match="one is there twice"):
        open_train(f"{one},{again}")
    for name in ("CIRR", "FashionIQ", "ok_vqa"):
        with pytest.raises(MmebError, match=f"{name} is a name of the benchmark's"):
            open_train(_write(folder / f"{name}.jsonl", row))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"qry": "q"}, "no column 'pos_text'; the columns are qry, "),
        ({"qry": "q", "positive": "a", "pos_text": "a"}, "a column 'positive', which is none of qry, "),
        ({"qry": "q", "pos_text": ["a", "b"], "pos_image_path": ["x", "y", "z"]}, "own, row 0: pos_text lists 2, but"),
        ({"qry": ["p", "q"], "pos_text": "a"}, "own, row 0: a row has one query, not 2"),
        ({"qry": "q", "pos_text": ""}, "own, row 0: there is no positive"),
        ({"qry": "q", "pos_text": {"a": 1}}, "does not hold strings, or lists of them"),
        ({"qry": "q", "pos_text": "", "pos_image_path": "gone.jpg"}, r"own, row 0: the image gone\.jpg is missing"),
    ],
)
def test_rows_that_are_wrong_are_named(folder: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(MmebError, match=message):
        _open(_write(folder / "own.jsonl", row))


def test_a_file_without_rows_is_an_error(folder: Path) -> None:
    with pytest.raises(MmebError, match=r"own\.jsonl has no (rows|column 'qry')"):
        _open(_write(folder / "own.jsonl"))
