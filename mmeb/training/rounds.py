"""Which items of a step run together, in which process, and in what order."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmeb.runtime.batching import BatchLimit, plan_batches


@dataclass(frozen=True)
class Planned:
    """Items that are to run together, int64 (n,), and their sub-batch's number in the whole step's plan."""

    items: NDArray[np.int64]
    number: int
    filler: bool = False


def plan_rounds(
    costs: NDArray[np.int64], groups: Sequence[Hashable], limit: BatchLimit | None, world: int
) -> list[list[list[Planned]]]:
    """Rounds of rows of sub-batches: a row has one for each process, all of one group and of similar cost.

    With a limit a round is one row, and which items run together does not depend on `world`. Without, there is one
    round, in which each group is shared out among the processes. Where a group runs out, the cheapest item of it fills
    the row up: all processes run the same modules in the same order, whoever has what. The costliest round comes last.
    """
    if limit is not None:
        batches = plan_batches(costs, groups, limit)
    else:
        whole = plan_batches(costs, groups, BatchLimit(max(1, len(costs))))
        batches = [batch[process::world] for batch in whole for process in range(min(world, len(batch)))]
    by_group: dict[Hashable, list[Planned]] = {}
    for number, batch in enumerate(batches):
        by_group.setdefault(groups[batch[0]], []).append(Planned(batch.astype(np.int64), number))
    rows = []
    for planned in by_group.values():
        filler = Planned(planned[-1].items[-1:], planned[-1].number, filler=True)
        for start in range(0, len(planned), world):
            row = planned[start : start + world]
            rows.append(row + [filler] * (world - len(row)))
    rows.sort(key=lambda row: int(costs[row[0].items[0]]) * len(row[0].items))
    return [[row] for row in rows] if limit is not None else [rows]
