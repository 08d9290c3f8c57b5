"""An endless order of one subset's rows, cut into groups in which targets repeat as little as they can."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def draw_groups(targets: Numbers, sizes: Iterator[int], seed: tuple[int, ...]) -> Iterator[Numbers]:
    """The rows of one group for each of `sizes`: int64 (size,), indices into `targets` (n_rows,).

    The sizes are endless, differ by one at most, and none exceeds n_rows. Every row is drawn once before any is drawn
    again; a group may span the end of such a pass. Within a pass, each target's rows are dealt out evenly: no group has
    two of them if there are at least as many whole groups as rows of the target, else the whole groups' numbers of them
    differ by one at most. All follows from the seed.
    """
    targets = np.unique(targets, return_inverse=True)[1]
    begun, missing, number = np.zeros(0, np.int64), 0, 0
    size = next(sizes)
    while True:
        rng = np.random.default_rng((*seed, number))
        left = rng.permutation(len(targets))
        if missing:
            other = left[~np.isin(left, begun)]
            other = other[_fill(targets[other], targets[begun], missing)]
            yield np.concatenate([begun, other])
            left = left[~np.isin(left, other)]
            size = next(sizes)
        whole, used = [], 0
        while used + size <= len(left):
            whole.append(size)
            used += size
            size = next(sizes)
        *groups, begun = _deal(left, targets[left], np.array([*whole, len(left) - used]), rng)
        yield from groups
        missing = size - len(begun) if len(begun) else 0
        number += 1


def _fill(pool: Numbers, begun: Numbers, count: int) -> Numbers:
    """Positions of `count` targets of `pool` (n,): those that repeat each other and `begun` the least."""
    order = np.argsort(pool, kind="stable")
    ordered = pool[order]
    earlier = np.empty(len(pool), np.int64)
    earlier[order] = np.arange(len(pool)) - np.searchsorted(ordered, ordered)
    earlier += np.bincount(begun, minlength=int(pool.max()) + 1)[pool]
    return np.argsort(earlier, kind="stable")[:count]


def _deal(rows: Numbers, targets: Numbers, sizes: Numbers, rng: np.random.Generator) -> list[Numbers]:
    """Deal rows (n,) with their targets (n,) out to groups of these sizes, whose sum is n.

    Target after target, in random order, the rows go to one group after another in rounds, the groups of each round in
    an order by chance; so a target's rows go to distinct groups as long as there are any. The larger groups' further
    rows come first. Where a target's rows lie in two rounds, the second begins with groups that the first left out.
    """
    places = rng.permutation(int(targets.max(initial=0)) + 1)[targets]
    order = np.argsort(places, kind="stable")
    places = places[order]
    slots = np.empty(len(rows), np.int64)
    end, spent = 0, slots[:0]
    for level in range(int(sizes.max()) - 1, -1, -1):
        groups = rng.permutation(np.flatnonzero(sizes > level))
        start, end = end, end + len(groups)
        if start and places[start] == places[start - 1]:
            count = min(int(np.searchsorted(places, places[start], side="right")), end) - start
            groups = groups[np.argsort(np.isin(groups, spent), kind="stable")]
            groups[count:] = rng.permutation(groups[count:])
        slots[start:end] = groups
        last = int(np.searchsorted(places, places[end - 1]))  # where the rows of the round's last target begin
        if last >= start:
            spent = slots[last:end]
    return np.split(rows[order][np.argsort(slots, kind="stable")], np.cumsum(sizes)[:-1])
