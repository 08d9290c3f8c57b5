from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmeb.errors import MmebError
from mmeb.results.submitted_ranks import QueryRanks, load_ranks, ranks_path, write_submission, write_submission_ranks


def columns(task: Sequence[Any] = ("a", "b"), rank: Sequence[Any] = (1, 2), **others: Sequence[Any]) -> dict[str, Any]:
    return {"task": task, "rank": rank, "predicted": (0, 1), "tied": (0, 0), **others}


def test_ranks_come_back_by_task_in_data_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    draw = {
        name: QueryRanks(*(generator.integers(1, 100, n, dtype=np.int32) for _ in range(3)))
        for name, n in (("EDIS", 7), ("CIRR", 1000), ("OVEN", 1))
    }
    write_submission_ranks(ranks_path(tmp_path / "m.json"), draw)
    loaded = load_ranks(tmp_path / "m.json")
    assert list(loaded) == ["EDIS", "CIRR", "OVEN"]
    for name, ranks in draw.items():
        for column in ("rank", "predicted", "tied"):
            assert np.array_equal(getattr(loaded[name], column), getattr(ranks, column))


def test_rows_of_a_task_need_not_stand_together(tmp_path: Path) -> None:
    mixed = {"task": ["b", "a", "b"], "rank": [1, 2, 3], "predicted": [0, 1, 2], "tied": [0, 0, 0]}
    pq.write_table(pa.table(mixed), tmp_path / "m.ranks.parquet")
    loaded = load_ranks(tmp_path / "m.json")
    assert loaded["b"].rank.tolist() == [1, 3]
    assert loaded["a"].rank.tolist() == [2]


def test_a_task_of_a_run_has_its_own(complete_run: Path) -> None:
    assert list(load_ranks(complete_run / "CIRR.json")) == ["CIRR"]
    assert len(load_ranks(complete_run / "CIRR.json")["CIRR"].rank) == 1000


def test_a_submission_is_left_as_it_was_where_its_ranks_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("earlier")
    ranks_path(tmp_path / "m.json").mkdir()
    with pytest.raises(MmebError, match=r"m\.ranks\.parquet can't be written"):
        write_submission(tmp_path / "m.json", {}, {"CIRR": QueryRanks(*np.ones((3, 4), np.int32))})
    assert (tmp_path / "m.json").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_submission_without_ranks_has_none(tmp_path: Path) -> None:
    assert load_ranks(tmp_path / "m.json") == {}


@pytest.mark.parametrize(
    "content",
    [
        columns(task=["a", None]),
        columns(rank=[1, None]),
        columns(rank=["x", "y"]),
        columns(rank=[1.5, 2]),
        columns(rank=[2**32 + 1, 2]),
        columns(rank=[{"a": 1}, {"a": 2}]),
        {"task": ["a"], "rank": [1]},
        {"task": pa.array([], pa.string()), **dict.fromkeys(("rank", "predicted", "tied"), pa.array([], pa.int32()))},
        {"task": ["a"] * 1_000_001, **dict.fromkeys(("rank", "predicted", "tied"), [1] * 1_000_001)},
    ],
    ids=[
        "no task",
        "a gap",
        "no numbers",
        "fractions",
        "too large",
        "objects",
        "columns missing",
        "no rows",
        "far too many rows",
    ],
)
def test_what_are_no_ranks_is_refused(tmp_path: Path, content: dict[str, Any]) -> None:
    pq.write_table(pa.table(content), tmp_path / "m.ranks.parquet")
    with pytest.raises(MmebError, match=r"m\.ranks\.parquet"):
        load_ranks(tmp_path / "m.json")
