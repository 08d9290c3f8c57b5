"""Metrics from ranks against the reference's and a peer's; the files that hold the ranks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.results.ranks import (
    CUTOFFS,
    Ranks,
    hit_at_1_ties_for_model,
    metrics_from_ranks,
    read_ranks,
    write_ranks,
    write_submission_ranks,
)
from mmeb.results.store import load_ranks, ranks_path, write_submission

PEER_NAMES = {
    "hit": "hit_rate",
    "ndcg_linear": "ndcg",
    "ndcg_exponential": "ndcg_burges",
    "mrr": "mrr",
    "map": "map",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
}


def reference_metrics() -> list[tuple[str, str]]:
    # The reference names WebQA's candidates by their image alone, so that two texts on one image are one to it.
    content = json.loads((GOLDEN / "v2_metrics.json").read_text())
    return [(setting, subset) for setting, subsets in content.items() for subset in subsets if subset != "WebQA"]


@pytest.mark.parametrize(("setting", "subset"), reference_metrics())
def test_metrics_are_the_references(setting: str, subset: str) -> None:
    expected = json.loads((GOLDEN / "v2_metrics.json").read_text())[setting][subset]
    scores = np.load(GOLDEN / "eval" / f"{setting}.npz")[f"{subset}/scores"]  # (queries, candidates)
    rank = 1 + (scores[:, 1:] >= scores[:, :1]).sum(axis=1).astype(np.int32)
    ours = metrics_from_ranks(rank)
    assert ours == pytest.approx({name: expected[name] for name in ours}, abs=1e-12)
    assert len(ours) == 24


def test_metrics_agree_with_a_peer_on_random_rankings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # else a minute of compiling
    import ranx

    scores = np.random.default_rng(0).permuted(np.tile(np.arange(30.0), (200, 1)), axis=1)  # (queries, candidates)
    qrels = ranx.Qrels({f"q{query}": {"c0": 1} for query in range(200)})
    run = ranx.Run({f"q{query}": {f"c{c}": score for c, score in enumerate(row)} for query, row in enumerate(scores)})
    peers = ranx.evaluate(qrels, run, [f"{peer}@{k}" for peer in PEER_NAMES.values() for k in CUTOFFS])
    ours = metrics_from_ranks(1 + (scores[:, 1:] > scores[:, :1]).sum(axis=1).astype(np.int32))
    assert ours == pytest.approx({f"{n}@{k}": peers[f"{p}@{k}"] for n, p in PEER_NAMES.items() for k in CUTOFFS})


def made(rank: list[int], tied: list[int]) -> Ranks:
    ranks = Ranks.empty(len(rank))
    ranks.rank[:], ranks.tied[:] = rank, tied
    ranks.score[:], ranks.runner_up[:] = 0.25, -np.inf
    return ranks


def test_ties_count_for_the_model_under_the_references_rule() -> None:
    ranks = made([1, 2, 3, 3], [0, 1, 2, 1])
    assert metrics_from_ranks(ranks.rank)["hit@1"] == 0.25
    assert hit_at_1_ties_for_model(ranks) == 0.75


def test_what_is_written_is_read(tmp_path: Path) -> None:
    written = made([1, 2, 900], [0, 1, 0])
    write_ranks(tmp_path / "task.ranks.parquet", written)
    read = read_ranks(tmp_path / "task.ranks.parquet")["task"]
    for column in ("rank", "predicted", "tied", "score", "runner_up"):
        assert (getattr(read, column) == getattr(written, column)).all()
        assert getattr(read, column).dtype == getattr(written, column).dtype
    assert [path.name for path in tmp_path.iterdir()] == ["task.ranks.parquet"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"gone\.ranks\.parquet can't be read"):
        read_ranks(tmp_path / "gone.ranks.parquet")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.ranks.parquet"
    write_ranks(path, made([1, 2], [0, 0]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(MmebError, match="can't be read as per-query ranks"):
        read_ranks(path)


def test_another_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"qry_text": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(MmebError, match="can't be read as per-query ranks"):
        read_ranks(tmp_path / "rows.parquet")


@pytest.mark.parametrize(
    ("rank", "tied", "problem"),
    [([0], [0], "below 1"), ([3], [-1], "below 0"), ([2], [2], "not above its number of ties"), ([], [], "no rows")],
)
def test_ranks_that_can_not_be_are_refused(tmp_path: Path, rank: list[int], tied: list[int], problem: str) -> None:
    write_ranks(tmp_path / "task.ranks.parquet", made(rank, tied))
    with pytest.raises(MmebError, match=problem):
        read_ranks(tmp_path / "task.ranks.parquet")


def columns(task: Sequence[Any] = ("a", "b"), rank: Sequence[Any] = (1, 2), **others: Sequence[Any]) -> dict[str, Any]:
    return {"task": task, "rank": rank, "predicted": (0, 1), "tied": (0, 0), **others}


def test_ranks_come_back_by_task_in_data_order(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    draw = {
        name: Ranks(*generator.integers(1, 100, (3, n), dtype=np.int32), *np.zeros((2, n), np.float32))
        for name, n in (("EDIS", 7), ("CIRR", 1000), ("OVEN", 1))
    }
    write_submission_ranks(ranks_path(tmp_path / "m.json"), draw)
    loaded = load_ranks(tmp_path / "m.json")
    assert list(loaded) == ["EDIS", "CIRR", "OVEN"]
    for name, ranks in draw.items():
        for column in ("rank", "predicted", "tied"):
            assert np.array_equal(getattr(loaded[name], column), getattr(ranks, column))
        assert np.isnan([loaded[name].score, loaded[name].runner_up]).all()


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
        write_submission(tmp_path / "m.json", {}, {"CIRR": made([1, 1], [0, 0])})
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
