"""Which items share a batch."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mmeb.errors import MmebError

# The limits of `auto`: tokens in a batch, padding counted. A CPU gains nothing from large batches; these keep a GPU
# busy, and larger ones would only fill the workers' shared memory and leave too few to share among processes.
_AUTO_TOKENS = {"cpu": 8_192, "cuda": 32_768}
_AUTO_ITEMS = {"cpu": 32, "cuda": 1_024}
# What a batch costs beside its tokens, in tokens: on a GPU the launch of a few hundred kernels.
_AUTO_OVERHEAD = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class BatchLimit:
    """How large a batch may be: `items` in number, and `tokens` (None = no bound) as items × the costliest one.

    `padding` (None = no bound) limits how many of these tokens may be padding: as many as one more batch would cost.
    """

    items: int
    tokens: int | None = None
    padding: int | None = None

    @classmethod
    def parse(cls, batch_size: int | str, device_type: str) -> Self:
        """From a user's `--batch-size`: a number of items, or `auto` for the device's token budget."""
        if batch_size == "auto":
            kind = device_type if device_type in _AUTO_TOKENS else "cpu"
            return cls(_AUTO_ITEMS[kind], _AUTO_TOKENS[kind], _AUTO_OVERHEAD[kind])
        try:
            items = int(batch_size)
        except ValueError:
            items = 0
        if items < 1:
            raise MmebError(f"The batch size must be `auto` or a number from 1 up, not {batch_size!r}.")
        return cls(items)

    def halved(self, costs: NDArray[np.int64]) -> Self:
        """The limit that cuts a batch with items of these costs, which did not fit, in half."""
        items = max(1, len(costs) // 2)
        if self.tokens is None:
            return type(self)(items)
        return replace(self, tokens=int(costs.max()) * items)


def plan_batches(costs: NDArray[np.int64], groups: Sequence[Hashable], limit: BatchLimit) -> list[NDArray[np.intp]]:
    """Cut items into batches of one group each, costliest first, so that padding is small.

    Returns index arrays that hold each item once, the costliest batch first. An item over the budget is a batch by
    itself. The plan depends on its arguments alone, so that a resumed run forms the same batches.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    batches = []
    for group_members in members.values():
        order = np.array(group_members, dtype=np.intp)
        order = order[np.argsort(-costs[order], kind="stable")]
        start = 0
        while start < len(order):
            count = limit.items
            if limit.tokens is not None:
                count = min(count, max(1, limit.tokens // max(1, int(costs[order[start]]))))
            if limit.padding is not None:
                padding = np.cumsum(costs[order[start]] - costs[order[start : start + count]])
                count = int(np.searchsorted(padding, limit.padding, side="right"))
            batches.append(order[start : start + count])
            start += count
    return sorted(batches, key=lambda batch: -int(costs[batch[0]]) * len(batch))
