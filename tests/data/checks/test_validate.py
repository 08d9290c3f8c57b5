"""What is wrong or odd in training data, before a run finds it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmeb.data.checks.validate import Validation, validate
from mmeb.data.train.subsets import open_train_sources

_ROW = {"qry": "<|image_1|>\nWhich sign?", "qry_image_path": "0.jpg", "pos_text": "stop"}


def _validate(folder: Path, *rows: dict[str, Any], images: int = 9, **options: Any) -> Validation:
    """Rows with changes to `_ROW`, whose images `0.jpg` … are there; row i has image i unless it says otherwise."""
    for number in range(images):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.jpg")
    lines = [json.dumps({**_ROW, "qry_image_path": f"{number}.jpg", **row}) for number, row in enumerate(rows)]
    (folder / "own.jsonl").write_text("\n".join(lines))
    source = open_train_sources(folder / "own.jsonl")["own"]
    return validate("own", source, workers=0, **options)


def _said(report: Validation) -> tuple[list[str], list[str]]:
    return [str(finding) for finding in report.errors], [str(finding) for finding in report.notes]


def test_sound_rows_are_counted(tmp_path: Path) -> None:
    report = _validate(
        tmp_path,
        {"pos_text": ["stop", "halt"], "neg_text": ["go"]},
        {"pos_text": "", "pos_image_path": "5.jpg"},
        {"qry": "Which?", "qry_image_path": ""},
    )
    assert _said(report) == ([], [])
    assert (report.rows, report.targets, report.images, report.decoded) == (3, 2, 3, 3)
    assert (report.query, report.target) == ((("image+text", 2), ("text", 1)), (("text", 2), ("image", 1)))
    assert (report.positives, report.negatives) == ((1, 2), (0, 1))


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([{}, {"qry": "", "qry_image_path": ""}], "rows without a query: 1 (own, row 1)"),
        ([{"pos_text": None}, {}], "rows without a positive: 1 (own, row 0)"),
        ([{"qry": "<|image_1|> <|image_1|>"}, {}], "two <|image_1|> in one text: 1 (own, row 0)"),
    ],
)
def test_a_row_that_cannot_be_trained_on_is_an_error(tmp_path: Path, rows: list[dict[str, Any]], error: str) -> None:
    assert _said(_validate(tmp_path, *rows))[0] == [error]


def test_images_that_are_missing_or_broken_are_named_with_their_first_row(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    report = _validate(
        tmp_path, {}, {"qry_image_path": "gone.jpg"}, {"qry_image_path": "broken.jpg"}, {"qry_image_path": "gone.jpg"}
    )
    missing, broken = _said(report)[0]
    assert missing.startswith("images that are missing: 1 (own, row 1: the image gone.jpg is missing")
    assert broken.startswith("images that can't be decoded: 1 (own, row 2: ")


def test_a_sample_opens_so_many_images_and_misses_none_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    report = _validate(tmp_path, {}, {"qry_image_path": "gone.jpg"}, {"qry_image_path": "broken.jpg"}, sample=0)
    assert (report.decoded, len(report.errors)) == (0, 1)
    assert _validate(tmp_path, {}, {}, {}, sample=2).decoded == 2


@pytest.mark.parametrize(
    ("rows", "note"),
    [
        (
            [{}, {"qry": "Which?"}],
            "an image, but no <|image_1|> in the text, which then gets one in front: 1 (own, row 1)",
        ),
        ([{}, {"pos_text": "<|image_1|>"}], "<|image_1|> in the text, but no image: 1 (own, row 1)"),
        (
            [{}, {"pos_text": "<image> x"}],
            "another model's image token; the one to write is <|image_1|>: 1 (own, row 1)",
        ),
        ([{}, {"pos_text": "go"}, {"qry_image_path": "0.jpg"}], "rows that are there twice: 1 (own, row 2)"),
        (
            [{"pos_text": ["a", "b"], "neg_text": ["b"]}, {}],
            "a negative that is also a positive of its row: 1 (own, row 0)",
        ),
        ([{}, {}], "all rows have one target, so that a batch has no negatives: 1 (own, row 0)"),
    ],
)
def test_what_is_odd_is_a_note(tmp_path: Path, rows: list[dict[str, Any]], note: str) -> None:
    errors, notes = _said(_validate(tmp_path, *rows))
    assert errors == []
    assert note in notes


def test_the_first_few_rows_are_named(tmp_path: Path) -> None:
    (error,) = _said(_validate(tmp_path, {}, *[{"pos_text": ""}] * 5))[0]
    assert error == "rows without a positive: 5 (own, row 1; own, row 2; own, row 3, …)"


def test_a_file_that_cannot_be_used_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"qry": "q"}\n')
    source = open_train_sources(tmp_path / "own.jsonl")["own"]
    (error,) = _said(validate("own", source, workers=0))[0]
    assert "has no column 'pos_text'" in error


def test_the_demo_is_sound() -> None:
    source = open_train_sources("demo")["CIRR"]
    report = validate("CIRR", source, sample=20, workers=2)
    assert (report.rows, report.images, report.decoded, _said(report)) == (500, 1500, 20, ([], []))
