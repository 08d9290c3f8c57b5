"""Which pairs make a batch."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmeb.data.train.dataset import open_train
from mmeb.errors import MmebError
from mmeb.training.sampler import BatchSampler

Batch = list[tuple[int, int]]  # (subset, row)

_MODES = ("homogeneous", "interleaved", "mixed")


@dataclass(frozen=True)
class _Subset:
    name: str
    target_ids: NDArray[np.int64]


def _subset(name: str, size: int, targets: int | None = None) -> _Subset:
    """`size` pairs with `targets` different targets, or all different."""
    return _Subset(name, np.arange(size, dtype=np.int64) % (targets or size))


_SUBSETS = [_subset("A", 20), _subset("B", 80, 37), _subset("C", 46, 5)]


def _sampler(subsets: list[_Subset] = _SUBSETS, **changed: Any) -> BatchSampler:
    arguments: dict[str, Any] = {"batch_size": 8, "steps": 50, "interleave": 4, **changed}
    return BatchSampler(subsets, **arguments)


def _batches(subsets: list[_Subset] = _SUBSETS, **changed: Any) -> list[Batch]:
    sampler = _sampler(subsets, **changed)
    return [sampler[step] for step in range(len(sampler))]


def _targets(batch: Batch, subsets: list[_Subset]) -> Counter[tuple[int, int]]:
    return Counter((number, int(subsets[number].target_ids[row])) for number, row in batch)


@pytest.mark.parametrize(("batches", "part"), [("homogeneous", 8), ("interleaved", 4), ("mixed", 8)])
def test_a_batch_has_its_size_and_no_part_of_it_holds_a_pair_twice(batches: str, part: int) -> None:
    drawn = _batches(batches=batches, steps=200)
    assert len(drawn) == 200
    for batch in drawn:
        assert len(batch) == 8
        assert all(len(set(batch[start : start + part])) == part for start in range(0, 8, part))


def test_a_homogeneous_batch_is_of_one_subset() -> None:
    assert all(len({subset for subset, _ in batch}) == 1 for batch in _batches())


def test_an_interleaved_batch_is_made_of_parts_of_one_subset() -> None:
    drawn = _batches(batches="interleaved")
    for batch in drawn:
        assert all(len({subset for subset, _ in batch[start : start + 4]}) == 1 for start in (0, 4))
    assert any(len({subset for subset, _ in batch}) == 2 for batch in drawn)


def test_a_mixed_batch_has_every_subset_in_its_share() -> None:
    for batch in _batches(batches="mixed", batch_size=20):
        counts = Counter(subset for subset, _ in batch)
        shares = [20 * 20 / 146, 20 * 80 / 146, 20 * 46 / 146]
        assert all(abs(counts[subset] - share) < 1 for subset, share in enumerate(shares))


@pytest.mark.parametrize("batches", _MODES)
def test_subsets_come_in_proportion_to_their_pairs_times_their_weight(batches: str) -> None:
    def shares(**changed: Any) -> list[float]:
        counts = Counter(subset for batch in _batches(batches=batches, steps=2000, **changed) for subset, _ in batch)
        return [counts[subset] / 16000 for subset in range(3)]

    assert shares() == pytest.approx([20 / 146, 80 / 146, 46 / 146], abs=0.03)
    assert shares(weights={"B": 0.5}) == pytest.approx([20 / 106, 40 / 106, 46 / 106], abs=0.03)


@pytest.mark.parametrize("batches", _MODES)
def test_the_seed_decides_the_order(batches: str) -> None:
    first = _batches(batches=batches, seed=1)
    assert first == _batches(batches=batches, seed=1)
    assert first != _batches(batches=batches, seed=2)


@pytest.mark.parametrize("batches", _MODES)
@pytest.mark.parametrize("step", [0, 1, 7, 49])
def test_a_step_is_computed_without_those_before_it(batches: str, step: int) -> None:
    assert _sampler(batches=batches)[step] == _batches(batches=batches)[step]


@pytest.mark.parametrize("batches", _MODES)
def test_more_steps_do_not_change_the_first_ones(batches: str) -> None:
    assert _batches(batches=batches, steps=120)[:50] == _batches(batches=batches)


@pytest.mark.parametrize("batches", _MODES)
@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(12, 90), st.integers(1, 90)), min_size=1, max_size=4),
    batch_size=st.sampled_from([2, 4, 8, 12]),
    seed=st.integers(0, 5),
)
def test_a_pass_has_every_pair_once_but_for_a_few_by_chance(
    batches: str, sizes: list[tuple[int, int]], batch_size: int, seed: int
) -> None:
    """Those that do not fill a batch (or part)."""
    subsets = [_subset(str(number), size, targets) for number, (size, targets) in enumerate(sizes)]
    drawn = _batches(subsets, batches=batches, batch_size=batch_size, interleave=2, steps=60, seed=seed)
    part = {"homogeneous": batch_size, "interleaved": 2}.get(batches)
    pairs = sum(size for size, _ in sizes)
    for number, (size, _) in enumerate(sizes):
        largest = part or math.ceil(size / pairs * batch_size)  # of a mixed batch: the subset's share, rounded up
        groups = [[row for subset, row in batch if subset == number] for batch in drawn]
        if part is not None:
            groups = [group[start : start + part] for group in groups for start in range(0, len(group), part)]
        groups = [group for group in groups if group]
        in_pass = size // largest
        for start in range(0, len(groups), in_pass):
            rows = [row for group in groups[start : start + in_pass] for row in group]
            assert len(set(rows)) == len(rows)
            assert part is None or len(groups) < start + in_pass or len(rows) > size - part


def test_which_pairs_a_pass_leaves_out_is_by_chance() -> None:
    subset = _subset("A", 10)
    counts = Counter(row for batch in _batches([subset], batch_size=4, steps=1000) for _, row in batch)
    assert all(count == pytest.approx(400, rel=0.1) for count in counts.values())


@settings(deadline=None, max_examples=150)
@given(
    groups=st.lists(st.integers(1, 6), min_size=4, max_size=60),
    batch_size=st.integers(2, 12),
    seed=st.integers(0, 5),
)
def test_no_batch_has_a_target_twice_where_the_data_allow_it(groups: list[int], batch_size: int, seed: int) -> None:
    targets = np.repeat(np.arange(len(groups)), groups)
    subset = _Subset("A", targets)
    if len(targets) < batch_size:
        return
    drawn = _batches([subset], batch_size=batch_size, steps=3 * len(targets) // batch_size, seed=seed)
    allowed = len(groups) >= batch_size and max(groups) < len(targets) // batch_size
    assert not allowed or all(max(_targets(batch, [subset]).values()) == 1 for batch in drawn)


@settings(deadline=None, max_examples=150)
@given(
    groups=st.lists(st.integers(1, 60), min_size=1, max_size=10),
    batch_size=st.integers(2, 12),
    seed=st.integers(0, 5),
)
def test_where_targets_must_repeat_they_do_so_evenly(groups: list[int], batch_size: int, seed: int) -> None:
    targets = np.repeat(np.arange(len(groups)), groups)
    if len(targets) < batch_size:
        return
    subset = _Subset("A", targets)
    drawn = _batches([subset], batch_size=batch_size, steps=len(targets) // batch_size, seed=seed)  # one pass
    for target in range(len(groups)):
        counts = [_targets(batch, [subset])[0, target] for batch in drawn]
        assert max(counts) - min(counts) <= 1


def test_mixed_drawnrepeat_no_target_either() -> None:
    subsets = [_subset("A", 90, 30), _subset("B", 200, 40)]
    drawn = _batches(subsets, batches="mixed", batch_size=16, steps=100)
    assert all(max(_targets(batch, subsets).values()) == 1 for batch in drawn)


def test_pairs_of_a_batch_meet_others_in_the_next_pass() -> None:
    subset = [_subset("A", 40, 20)]
    first, second = (
        {frozenset(batch) for batch in _batches(subset, steps=10)[part]} for part in (slice(5), slice(5, 10))
    )
    assert not first & second


def test_it_samples_what_open_train_gives() -> None:
    subsets = open_train("demo", ["HatefulMemes", "CIRR"])
    assert all(subsets[number][row].positives for number, row in BatchSampler(subsets, batch_size=16, steps=1)[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 1}, "batch size must be 2 or more"),
        ({"batch_size": 24}, "A has 20 pairs, which is less than a batch of 24: lower batch_size, or leave A out"),
        ({"batches": "interleaved", "batch_size": 48, "interleave": 24}, "less than a part of 24: lower interleave"),
        ({"batches": "mixed", "batch_size": 160}, "less than its share of 22 in a batch: lower batch_size"),
        ({"batches": "interleaved", "interleave": 3}, "A batch of 8 can't be made of parts of 3"),
        ({"weights": {"D": 1}}, "no subset 'D' to give a weight to"),
        ({"weights": {"B": 0}}, "weight of B must be above 0, not 0; --subsets leaves one out"),
    ],
)
def test_what_cannot_work_is_said_before_the_first_step(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(MmebError, match=message):
        _batches(**changed)


def test_a_weight_for_a_subset_that_is_left_out_is_allowed() -> None:
    assert _batches(weights={"WebQA": 0.5}) == _batches()
