"""Which failures are shown, in which order, and what is said of them."""

import numpy as np
import pytest

from mmeb.data.dataset import EvalDataset
from mmeb.data.item import Item, Role
from mmeb.data.part import DataSource
from mmeb.report.gallery import gallery
from mmeb.results.ranks import Ranks


def dataset_of(candidate_ids: list[list[int]]) -> EvalDataset:
    ids = np.array(candidate_ids, dtype=np.int32)
    return EvalDataset(
        task="GQA",
        queries=[Item(text=f"question {row}") for row in range(len(ids))],
        candidates=[Item(text=f"answer {c}", role=Role.CANDIDATE) for c in range(ids.max() + 1)],
        query_ids=np.arange(len(ids), dtype=np.int32),
        candidate_ids=ids,
        source=DataSource("folder", "here"),
        fingerprint="",
    )


def ranks_of(rank: list[int], predicted: list[int], tied: list[int] | None = None, gap: float = 0.1) -> Ranks:
    ranks = Ranks.empty(len(rank))
    ranks.rank[:], ranks.predicted[:], ranks.tied[:] = rank, predicted, tied or [0] * len(rank)
    ranks.runner_up[:] = gap * np.arange(1, len(rank) + 1)
    return ranks


def test_the_deepest_rank_comes_first_then_the_widest_margin() -> None:
    data = dataset_of([[row, 4, 5, 6] for row in range(4)])
    found = gallery(ranks_of([2, 4, 2, 1], [1, 2, 3, 0]), data, n_examples=10)
    assert [example.row for example in found.examples] == [1, 2, 0]
    assert [example.retrieved and example.retrieved.text for example in found.examples] == [
        "answer 5",
        "answer 6",
        "answer 4",
    ]
    assert [example.right.text for example in found.examples] == ["answer 1", "answer 2", "answer 0"]


def test_there_are_no_more_examples_than_asked_for_but_all_are_counted() -> None:
    data = dataset_of([[row, 8, 9] for row in range(6)])
    found = gallery(ranks_of([3] * 6, [1] * 6), data, n_examples=2)
    assert len(found.examples) == 2
    assert (found.n_wrong, found.n_rows) == (6, 6)


def test_the_bars_hold_every_query_once() -> None:
    rank = [1, 1, 2, 4, 5, 7, 11, 19, 25]
    data = dataset_of([[row, *range(10, 34)] for row in range(9)])
    bars = gallery(ranks_of(rank, [0] * 9), data, 0).bars
    assert {bar.label: bar.count for bar in bars} == {
        "1": 2,
        "2": 1,
        "3": 0,
        "4–5": 2,
        "6–10": 1,
        "11–20": 2,
        "21–25": 1,
    }


def test_ranks_beyond_a_thousand_share_a_bar() -> None:
    data = dataset_of([[0, *range(1, 1500)], [1, *range(2, 1501)]])
    last = gallery(ranks_of([1400, 3], [1, 1]), data, 0).bars[-1]
    assert (last.label, last.count) == ("over 1000", 1)


def test_a_tie_with_the_right_candidate_is_no_wrong_retrieval() -> None:
    found = gallery(ranks_of([3], [0], [2]), dataset_of([[0, 1, 2]]), 5)
    assert found.examples[0].retrieved is None
    assert found.examples[0].tied == 2
    assert found.confusions == ()


def test_what_is_retrieved_for_everything_is_named() -> None:
    data = dataset_of([[0, 3, 4], [1, 3, 4], [2, 3, 4], [3, 0, 4]])
    found = gallery(ranks_of([2, 2, 2, 1], [1, 1, 2, 0]), data, 0)
    assert [(c.candidate.text, c.count, c.right_for) for c in found.confusions] == [("answer 3", 2, 1)]


def test_chance_counts_each_distinct_candidate_once_and_no_padding() -> None:
    data = dataset_of([[0, 1, 1, -1], [0, 1, 2, 3]])
    assert gallery(ranks_of([1, 1], [0, 0]), data, 0).chance == pytest.approx((1 / 2 + 1 / 4) / 2)
