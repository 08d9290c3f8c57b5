"""Steps that worker processes plan and prepare."""

import resource
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from support.contrastive_steps import golden_pairs, item, make_step, whole_draw

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.training.recipe import Recipe
from mmeb.training.step import SubBatch
from mmeb.training.step_loader import StepLoader

RECIPE = Recipe("demo", batch_size=8, micro_batch_size=3)


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))


def _same(found: SubBatch, expected: SubBatch) -> bool:
    inputs = found.batch.inputs
    return found.seed == expected.seed and all(
        torch.equal(inputs[name], tensor) for name, tensor in expected.batch.inputs.items()
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("size", [3, None])
def test_steps_come_in_order_whoever_prepares_them(model: DemoModel, workers: int, size: int | None) -> None:
    pairs, recipe = golden_pairs(), replace(RECIPE, micro_batch_size=size)
    draws = [whole_draw(pairs, step) for step in range(6)]
    loader = StepLoader(model, [pairs], recipe, draws, workers=workers)
    assert len(loader) == 6
    for step, batch in enumerate(loader):
        expected = make_step(model, pairs, recipe, step=step)
        assert batch.plan.step == step
        for found, wanted in zip(batch.rounds, expected.rounds, strict=True):
            assert all(_same(*subs) for subs in zip(found, wanted, strict=True))
    assert step == 5


@pytest.mark.parametrize("workers", [0, 2])
def test_rounds_are_prepared_again_on_demand(model: DemoModel, workers: int) -> None:
    pairs = golden_pairs()
    for batch in StepLoader(model, [pairs], RECIPE, [whole_draw(pairs, step) for step in range(2)], workers=workers):
        first = list(batch.rounds)
        again = list(batch.again(batch.plan.rounds[1:]))
        assert len(again) == len(first) - 1
        for found, wanted in zip(again, first[1:], strict=True):
            assert all(_same(*subs) for subs in zip(found, wanted, strict=True))


@pytest.fixture
def few_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_open_files")
def test_a_step_of_many_sub_batches_opens_few_files(model: DemoModel) -> None:
    """A tensor in shared memory is an open file, of which a process may have 1024 by default."""
    pairs = [
        TrainPair(item(f"query {row}", "", Role.QUERY), (item(f"target {row}", "", Role.CANDIDATE),))
        for row in range(200)
    ]
    draws = [whole_draw(pairs, step) for step in range(2)]
    kept = []
    for batch in StepLoader(model, [pairs], replace(RECIPE, micro_batch_size=1), draws, workers=2):
        kept += list(batch.rounds)
    assert len(kept) == 800


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_is_raised_in_its_step_and_stays_plain(model: DemoModel, workers: int) -> None:
    """One that is not an image's: a model that can't take a text."""

    class Picky(DemoModel):
        def cost(self, item: Item) -> int:
            if item.text == "too much":
                raise MmebError("This text is too much.")
            return super().cost(item)

    picky = Picky.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))
    pairs = golden_pairs()
    bad = [replace(pairs[0], query=item("too much", "", Role.QUERY))]
    draws = [whole_draw(pairs, 0), replace(whole_draw(bad, 1), rows=[(1, 0)])]
    steps = iter(StepLoader(picky, [pairs, bad], RECIPE, draws, workers=workers))
    assert len(list(next(steps).rounds)) == len(make_step(model, pairs, RECIPE).plan.rounds)
    with pytest.raises(MmebError, match=r"^This text is too much\.$"):
        next(steps)
