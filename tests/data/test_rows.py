from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmeb.data.rows import Rows, read_rows
from mmeb.errors import MmebError
from mmeb.tasks import get_task

_TASK = get_task("WebQA")


def _row(**changes: Any) -> dict[str, Any]:
    row = {"qry_text": "Where?", "qry_img_path": "", "tgt_text": ["one", "two"], "tgt_img_path": ["a.jpg", "b.jpg"]}
    return {**row, **changes}


def _candidates(rows: Rows) -> list[list[tuple[str, str]]]:
    """(text, path) of all candidates, row by row."""
    side = rows.candidate
    texts = [str(side.prompts[code]) for code in side.prompt_codes]
    paths = [side.paths[code] for code in side.path_codes]
    pairs = iter(zip(texts, paths, strict=True))
    return [[next(pairs) for _ in range(length)] for length in rows.lengths]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_rows_come_in_order_with_all_their_candidates(write_rows: Any, name: str) -> None:
    rows = read_rows([write_rows([_row(), _row(tgt_text=["three"], tgt_img_path=["a.jpg"])], name)], _TASK)
    assert _candidates(rows) == [[("one", "a.jpg"), ("two", "b.jpg")], [("three", "a.jpg")]]
    assert rows.as_matrix(np.arange(3, dtype=np.int32)).tolist() == [[0, 1], [2, -1]]
    assert [rows.row_of(position) for position in range(3)] == [0, 0, 1]


def test_shards_and_row_groups_follow_each_other(tmp_path: Path, write_rows: Any) -> None:
    many = [_row(tgt_text=[f"{i}", "same"]) for i in range(6)]
    first = write_rows(many[:4], "test-00000-of-00002.parquet")
    pq.write_table(pq.read_table(first), first, row_group_size=1)
    second = write_rows(many[4:], "test-00001-of-00002.parquet")
    rows = read_rows([first, second], _TASK)
    assert [row[0][0] for row in _candidates(rows)] == ["0", "1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize("text", ["", [], None])
def test_candidates_without_texts_are_images_alone(write_rows: Any, name: str, text: Any) -> None:
    rows = read_rows([write_rows([_row(tgt_text=text)], name)], _TASK)
    assert _candidates(rows) == [[("", "a.jpg"), ("", "b.jpg")]]


@pytest.mark.parametrize("path", ["", [], None, ["", ""]])
def test_candidates_without_images_are_texts_alone(write_rows: Any, path: Any) -> None:
    rows = read_rows([write_rows([_row(tgt_img_path=path)])], _TASK)
    assert _candidates(rows) == [[("one", ""), ("two", "")]]


def test_large_string_and_dictionary_columns_read_like_plain_ones(tmp_path: Path) -> None:
    table = pa.table({name: [value] for name, value in _row().items()})
    table = table.set_column(0, "qry_text", table["qry_text"].dictionary_encode())
    table = table.set_column(2, "tgt_text", table["tgt_text"].cast(pa.large_list(pa.large_string())))
    pq.write_table(table, tmp_path / "rows.parquet")
    assert _candidates(read_rows([tmp_path / "rows.parquet"], _TASK)) == [[("one", "a.jpg"), ("two", "b.jpg")]]


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        ({"tgt_img_path": ["a.jpg"]}, r"WebQA, row 1: 2 candidate texts, but 1 candidate images"),
        ({"tgt_text": [], "tgt_img_path": []}, r"WebQA, row 1: there are no candidates"),
        ({"qry_text": " \n"}, r"WebQA, row 1: the query is empty"),
        ({"qry_text": "<|image_1|>\n"}, r"WebQA, row 1: the query is empty"),
        ({"qry_text": None}, r"WebQA, row 1: the query is empty"),
    ],
)
@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_a_bad_row_is_named(write_rows: Any, name: str, bad: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MmebError, match=sentence):
        read_rows([write_rows([_row(), _row(**bad), _row()], name)], _TASK)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    pd.DataFrame([{"qry_text": "Where?"}]).to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(MmebError, match=r"rows\.parquet has no column tgt_text"):
        read_rows([tmp_path / "rows.parquet"], _TASK)


def test_a_column_of_another_type_is_an_error(write_rows: Any) -> None:
    with pytest.raises(MmebError, match="does not hold strings, or lists of them"):
        read_rows([write_rows([_row(tgt_text=[{"answer": "one"}], tgt_img_path=["a.jpg"])])], _TASK)


def test_a_column_that_the_first_line_lacks_is_read_all_the_same(write_rows: Any) -> None:
    text_only = {name: value for name, value in _row().items() if name != "tgt_img_path"}
    rows = read_rows([write_rows([text_only, _row()], "rows.jsonl")], _TASK)
    assert _candidates(rows) == [[("one", ""), ("two", "")], [("one", "a.jpg"), ("two", "b.jpg")]]


@pytest.mark.parametrize("extra", [7, "seven", 2**64, {"a": 1}, ["a", 1], "half an emoji \ud83d", None])
def test_a_column_that_nobody_asked_for_may_hold_anything(write_rows: Any, extra: Any) -> None:
    rows = read_rows([write_rows([{**_row(), "id": extra}, {**_row(), "id": "text"}], "rows.jsonl")], _TASK)
    assert len(rows.lengths) == 2


def test_a_byte_order_mark_is_no_damage(write_rows: Any) -> None:
    path = write_rows([_row()], "rows.jsonl")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_rows([path], _TASK).lengths) == 1


@pytest.mark.parametrize("value", [7, {"a": 1}, ["a", 1]])
def test_a_value_that_is_no_string_is_named_with_its_row_and_column(write_rows: Any, value: Any) -> None:
    path = write_rows([_row(), _row(tgt_text=value)], "rows.jsonl")
    with pytest.raises(MmebError, match=r"rows\.jsonl, row 1: the column tgt_text does not hold strings"):
        read_rows([path], _TASK)


def test_a_query_that_lists_several_strings_is_named(write_rows: Any) -> None:
    path = write_rows([_row(), _row(qry_text=["Where?", "When?"])], "rows.jsonl")
    with pytest.raises(MmebError, match="row 1: qry_text lists 2 strings instead of one"):
        read_rows([path], _TASK)


def test_lines_that_are_no_objects_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('["Where?"]\n')
    with pytest.raises(MmebError, match="a line is no JSON object"):
        read_rows([tmp_path / "rows.jsonl"], _TASK)


def test_shards_of_different_columns_are_an_error(write_rows: Any) -> None:
    first = write_rows([_row()], "test-00000-of-00002.parquet")
    second = write_rows([{"qry_text": "Where?", "tgt_text": ["one"]}], "test-00001-of-00002.parquet")
    with pytest.raises(MmebError, match="have different columns"):
        read_rows([first, second], _TASK)


def test_a_file_without_rows_is_an_error(tmp_path: Path) -> None:
    pd.DataFrame([_row()]).iloc[:0].to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(MmebError, match=r"rows\.parquet has no rows"):
        read_rows([tmp_path / "rows.parquet"], _TASK)


@pytest.mark.parametrize(("name", "keep"), [("rows.parquet", 100), ("rows.jsonl", 40)])
def test_a_file_that_is_cut_off_is_an_error(write_rows: Any, name: str, keep: int) -> None:
    path = write_rows([_row()], name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(MmebError, match=f"{name} can't be read, the file is cut off or damaged"):
        read_rows([path], _TASK)
