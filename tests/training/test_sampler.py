"""Which pairs make a batch."""

from collections import Counter

import pytest

from mmeb.errors import MmebError
from mmeb.training.sampler import HomogeneousSampler

_SIZES = [10, 40, 23]


def _subset(pair: int) -> int:
    return 0 if pair < 10 else 1 if pair < 50 else 2


def test_a_batch_is_of_one_subset_and_holds_no_pair_twice() -> None:
    batches = list(HomogeneousSampler(_SIZES, batch_size=4, steps=200, seed=0))
    assert len(batches) == 200
    assert all(len(set(batch)) == 4 for batch in batches)
    assert all(len({_subset(pair) for pair in batch}) == 1 for batch in batches)


def test_subsets_come_in_proportion_to_their_pairs() -> None:
    counts = Counter(_subset(batch[0]) for batch in HomogeneousSampler(_SIZES, batch_size=4, steps=2000, seed=0))
    assert [counts[subset] / 2000 for subset in range(3)] == pytest.approx([10 / 73, 40 / 73, 23 / 73], abs=0.04)


def test_every_pair_is_seen_before_one_is_seen_again() -> None:
    batches = list(HomogeneousSampler([12], batch_size=4, steps=6, seed=0))
    for round_trip in (batches[:3], batches[3:]):
        assert sorted(pair for batch in round_trip for pair in batch) == list(range(12))


def test_the_seed_decides_the_order() -> None:
    first = list(HomogeneousSampler(_SIZES, batch_size=4, steps=50, seed=0))
    assert first == list(HomogeneousSampler(_SIZES, batch_size=4, steps=50, seed=0))
    assert first != list(HomogeneousSampler(_SIZES, batch_size=4, steps=50, seed=1))


def test_a_subset_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(MmebError, match="10 pairs, which is less than a batch of 16"):
        HomogeneousSampler(_SIZES, batch_size=16, steps=1, seed=0)
