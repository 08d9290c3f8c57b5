"""What a model got wrong on one task, worst first."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmeb.data.dataset import EvalDataset
from mmeb.data.item import Item
from mmeb.results.ranks import Ranks

_EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # the last rank of each bar; a last one holds the rest
_CONFUSIONS = 6


@dataclass(frozen=True)
class Bar:
    """How many queries have their right candidate on ranks `first` to `last`; None: all that follow."""

    first: int
    last: int | None
    count: int

    @property
    def label(self) -> str:
        if self.last is None:
            return f"over {self.first - 1}"
        return str(self.first) if self.first == self.last else f"{self.first}–{self.last}"


@dataclass(frozen=True)
class Example:
    """A query that was answered wrongly: the row it is in (from 0), and cosines of the right and the best other one.

    `retrieved` is None where the right candidate is itself among the best, tied with others.
    """

    row: int
    rank: int
    n_candidates: int
    tied: int
    score: float
    runner_up: float
    query: Item
    right: Item
    retrieved: Item | None


@dataclass(frozen=True)
class Confusion:
    """A candidate that was retrieved for `count` queries that it does not answer, of the `right_for` that it does."""

    candidate: Item
    count: int
    right_for: int


@dataclass(frozen=True)
class Gallery:
    """A task's failures. `chance` is hit@1 of a blind guess, as a fraction; `n_wrong` of `n_rows` queries failed."""

    n_rows: int
    n_wrong: int
    chance: float
    median_rank: float
    bars: tuple[Bar, ...]
    examples: tuple[Example, ...]
    confusions: tuple[Confusion, ...]


def gallery(ranks: Ranks, dataset: EvalDataset, n_examples: int) -> Gallery:
    """The failures of a task, the `n_examples` worst of them as examples: deepest rank first, then widest margin."""
    ids = dataset.candidate_ids
    sizes = np.array([len(np.unique(row[row >= 0])) for row in ids])
    margin = ranks.runner_up - ranks.score
    worst_first = np.lexsort((np.arange(len(ranks)), -margin, -ranks.rank))
    wrong = worst_first[ranks.rank[worst_first] > 1]
    retrieved = ids[np.arange(len(ids)), ranks.predicted]
    return Gallery(
        n_rows=len(ranks),
        n_wrong=len(wrong),
        chance=float((1 / sizes).mean()),
        median_rank=float(np.median(ranks.rank)),
        bars=tuple(_bars(ranks.rank, int(sizes.max()))),
        examples=tuple(_example(int(row), ranks, dataset, sizes, retrieved) for row in wrong[:n_examples]),
        confusions=tuple(_confusions(dataset, retrieved)),
    )


def _bars(rank: NDArray[np.int32], width: int) -> Iterator[Bar]:
    first = 1
    for last in _EDGES:
        if first > width:
            return
        yield Bar(first, min(last, width), int(((rank >= first) & (rank <= last)).sum()))
        first = last + 1
    if first <= width:
        yield Bar(first, None, int((rank >= first).sum()))


def _example(
    row: int, ranks: Ranks, dataset: EvalDataset, sizes: NDArray[np.int64], retrieved: NDArray[np.int32]
) -> Example:
    truth, best = dataset.candidate_ids[row, 0], retrieved[row]
    return Example(
        row=row,
        rank=int(ranks.rank[row]),
        n_candidates=int(sizes[row]),
        tied=int(ranks.tied[row]),
        score=float(ranks.score[row]),
        runner_up=float(ranks.runner_up[row]),
        query=dataset.queries[dataset.query_ids[row]],
        right=dataset.candidates[truth],
        retrieved=None if best == truth else dataset.candidates[best],
    )


def _confusions(dataset: EvalDataset, retrieved: NDArray[np.int32]) -> Iterator[Confusion]:
    """The candidates that are retrieved most often without being right."""
    truth = dataset.candidate_ids[:, 0]
    right_for = Counter(truth.tolist())
    for candidate, count in Counter(retrieved[retrieved != truth].tolist()).most_common(_CONFUSIONS):
        if count > 1:
            yield Confusion(dataset.candidates[candidate], count, right_for[candidate])
