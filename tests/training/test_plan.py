"""Which items of a step run together, where and when."""

import numpy as np
import pytest

from mmeb.runtime.batching import BatchLimit
from mmeb.training.batch import MicroBatch, plan_passes

COSTS = np.array([9, 8, 7, 6, 5, 4, 30, 20, 10])
GROUPS = ["text"] * 6 + ["image"] * 3


def _shape(passes: list[list[list[MicroBatch]]]) -> list[list[list[list[int]]]]:
    return [[[each.positions.tolist() for each in row] for row in rows] for rows in passes]


def test_a_pass_is_of_one_kind_in_all_processes_and_the_costliest_is_last() -> None:
    passes = plan_passes(COSTS, GROUPS, BatchLimit(2), world=2)
    assert _shape(passes) == [[[[4, 5], [5]]], [[[0, 1], [2, 3]]], [[[6, 7], [8]]]]
    assert [each.filler for rows in passes for row in rows for each in row] == [False, True] + [False] * 4


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_what_runs_together_does_not_depend_on_the_number_of_processes(world: int) -> None:
    alone = plan_passes(COSTS, GROUPS, BatchLimit(2), world=1)
    many = plan_passes(COSTS, GROUPS, BatchLimit(2), world)
    expected, found = (
        {each.number: each.positions.tolist() for rows in passes for row in rows for each in row if not each.filler}
        for passes in (alone, many)
    )
    assert found == expected


@pytest.mark.parametrize("world", [1, 2, 4])
def test_without_a_limit_there_is_one_pass_which_the_processes_share(world: int) -> None:
    (rows,) = plan_passes(COSTS, GROUPS, None, world)
    assert len(rows) == 2
    for row in rows:
        assert len(row) == world
        assert len({GROUPS[int(each.positions[0])] for each in row}) == 1
        sizes = [len(each.positions) for each in row if not each.filler]
        assert max(sizes) - min(sizes) <= 1
    covered = [position for row in rows for each in row if not each.filler for position in each.positions]
    assert sorted(covered) == list(range(9))


def test_a_token_budget_bounds_a_micro_batch() -> None:
    passes = plan_passes(COSTS, GROUPS, BatchLimit(100, 18), world=1)
    sizes = [COSTS[each.positions].max() * len(each.positions) for rows in passes for row in rows for each in row]
    assert [size for size in sizes if size > 18] == [20, 30]  # those that are over it by themselves
