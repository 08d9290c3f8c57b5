"""What runs together, where and when."""

import numpy as np
import pytest

from mmeb.runtime.batching import BatchLimit
from mmeb.training.rounds import Planned, plan_rounds

COSTS = np.array([9, 8, 7, 6, 5, 4, 30, 20, 10])
GROUPS = ["text"] * 6 + ["image"] * 3


def _shape(rounds: list[list[list[Planned]]]) -> list[list[list[list[int]]]]:
    return [[[planned.items.tolist() for planned in row] for row in rows] for rows in rounds]


def test_a_round_is_of_one_kind_in_all_processes_and_the_costliest_is_last() -> None:
    rounds = plan_rounds(COSTS, GROUPS, BatchLimit(2), world=2)
    assert _shape(rounds) == [[[[4, 5], [5]]], [[[0, 1], [2, 3]]], [[[6, 7], [8]]]]
    assert [planned.filler for rows in rounds for row in rows for planned in row] == [False, True] + [False] * 4


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_what_runs_together_does_not_depend_on_the_number_of_processes(world: int) -> None:
    alone = plan_rounds(COSTS, GROUPS, BatchLimit(2), world=1)
    many = plan_rounds(COSTS, GROUPS, BatchLimit(2), world)
    expected, found = (
        {
            planned.number: planned.items.tolist()
            for rows in rounds
            for row in rows
            for planned in row
            if not planned.filler
        }
        for rounds in (alone, many)
    )
    assert found == expected


@pytest.mark.parametrize("world", [1, 2, 4])
def test_without_a_limit_there_is_one_round_which_the_processes_share(world: int) -> None:
    (rows,) = plan_rounds(COSTS, GROUPS, None, world)
    assert len(rows) == 2
    for row in rows:
        assert len(row) == world
        assert len({GROUPS[int(planned.items[0])] for planned in row}) == 1
        sizes = [len(planned.items) for planned in row if not planned.filler]
        assert max(sizes) - min(sizes) <= 1
    covered = [position for row in rows for planned in row if not planned.filler for position in planned.items]
    assert sorted(covered) == list(range(9))


def test_a_token_budget_bounds_a_sub_batch() -> None:
    rounds = plan_rounds(COSTS, GROUPS, BatchLimit(100, 18), world=1)
    sizes = [COSTS[planned.items].max() * len(planned.items) for rows in rounds for row in rows for planned in row]
    assert [size for size in sizes if size > 18] == [20, 30]  # those that are over it by themselves
