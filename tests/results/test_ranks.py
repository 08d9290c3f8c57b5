"""Metrics from ranks against the reference's and a peer's; the file that holds the ranks."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.results.ranks import CUTOFFS, Ranks, hit_at_1_ties_for_model, metrics_from_ranks, read_ranks, write_ranks

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
    read = read_ranks(tmp_path / "task.ranks.parquet")
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
