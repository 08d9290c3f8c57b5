"""`--batch-size auto` on a device whose memory can be measured: it starts low and takes what fits."""

import numpy as np
import pytest
from support.hash_model import HashModel
from torch import Tensor

from mmeb.data.item import Item
from mmeb.evaluation.encode import Encoder, encode
from mmeb.models.base import Batch
from mmeb.runtime.batching import BatchLimit
from mmeb.runtime.memory import MemoryBudget
from mmeb.runtime.processes import Processes

COST = 100  # tokens of each item, a byte each in the meter below


class Measured(HashModel):
    """Takes 100 bytes an item, of which `memory` are there; is its own meter."""

    def __init__(self, memory: int, max_batch: int | None = None) -> None:
        super().__init__(max_batch=max_batch)
        self.memory, self.taken = memory, 0

    def embed(self, batch: Batch) -> Tensor:
        self.taken = max(self.taken, COST * batch.size)
        return super().embed(batch)

    def cost(self, item: Item) -> int:
        return COST

    def start(self) -> None:
        self.taken = 0

    def peak(self) -> int:
        return self.taken

    def available(self) -> int:
        return self.memory


def texts(n: int) -> list[Item]:
    return [Item(f"text {position}") for position in range(n)]


def encoded(model: Measured, n: int) -> list[int]:
    """The sizes of the batches in the order in which they were tried."""
    with Encoder(model, workers=0, progress=False, meter=model) as encoder:
        vectors, _ = encoder(texts(n))
    np.testing.assert_allclose(vectors, encode(HashModel(), texts(n), batch_size=1, workers=0), atol=1e-6)
    return model.batch_sizes


def test_the_first_batch_is_small_and_the_next_take_what_fits() -> None:
    sizes = encoded(Measured(memory=3_750), 120)  # 0.8 of it holds 30 items
    assert sizes == [20, 30, 30, 30, 10]


def test_no_batch_is_larger_than_the_most_however_much_memory_there_is() -> None:
    assert max(encoded(Measured(memory=10**12), 200)) == 32


def test_what_does_not_fit_after_all_is_halved_and_does_not_grow_again() -> None:
    sizes = encoded(Measured(memory=10**12, max_batch=24), 200)
    assert sizes[0] == 20
    assert max(sizes) <= 24
    assert sizes[1:-1] == [16] * len(sizes[1:-1])


@pytest.mark.parametrize("limit", [BatchLimit(8), BatchLimit.parse(8, "cuda")])
def test_a_number_of_items_is_taken_as_it_is(limit: BatchLimit) -> None:
    budget = MemoryBudget(limit, Measured(memory=10**12))
    assert budget.unmeasured(["text"]) == set()
    budget.update(Processes(), None)
    assert budget.limit == limit
