"""Steps that worker processes plan and prepare."""

import resource
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from support.contrastive_steps import all_rows, golden_pairs, item, make_step

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.training.batch import MicroBatch
from mmeb.training.loader import StepLoader
from mmeb.training.recipe import Recipe

RECIPE = Recipe("demo", batch_size=8, micro_batch_size=3)


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))


def _same(found: MicroBatch, expected: MicroBatch) -> bool:
    assert found.inputs is not None
    assert expected.inputs is not None
    inputs = found.inputs.inputs
    return found.number == expected.number and all(
        torch.equal(inputs[name], tensor) for name, tensor in expected.inputs.inputs.items()
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("size", [3, None])
def test_steps_come_in_order_whoever_prepares_them(model: DemoModel, workers: int, size: int | None) -> None:
    pairs, recipe = golden_pairs(), replace(RECIPE, micro_batch_size=size)
    loader = StepLoader(model, [pairs], recipe, [all_rows(pairs)] * 6, start=1, workers=workers)
    assert len(loader) == 5
    for step, batch in enumerate(loader, start=1):
        expected = make_step(model, pairs, recipe, step=step)
        assert batch.plan.step == step
        for found, others in zip(batch.first_pass(), expected.first_pass(), strict=True):
            assert all(_same(*each) for each in zip(found, others, strict=True))
    assert step == 5


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_the_second_pass_has_the_inputs_of_the_first(
    model: DemoModel, workers: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmeb.training.batch._KEPT", kept)
    pairs = golden_pairs()
    for batch in StepLoader(model, [pairs], RECIPE, [all_rows(pairs)] * 2, workers=workers):
        *first, _ = batch.first_pass()
        for found, others in zip(batch.second_pass(), first, strict=True):
            assert all(_same(*each) for each in zip(found, others, strict=True))


@pytest.fixture
def few_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_open_files")
def test_a_step_of_many_micro_batches_opens_few_files(model: DemoModel) -> None:
    """A tensor in shared memory is an open file, of which a process may have 1024 by default."""
    pairs = [
        TrainPair(item(f"query {row}", "", Role.QUERY), (item(f"target {row}", "", Role.CANDIDATE),))
        for row in range(200)
    ]
    kept = []
    for batch in StepLoader(model, [pairs], replace(RECIPE, micro_batch_size=1), [all_rows(pairs)] * 2, workers=2):
        kept += list(batch.first_pass())
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
    steps = iter(StepLoader(picky, [pairs, bad], RECIPE, [all_rows(pairs), [(1, 0)]], workers=workers))
    assert len(list(next(steps).first_pass())) == len(make_step(model, pairs, RECIPE).plan.passes)
    with pytest.raises(MmebError, match=r"^This text is too much\.$"):
        next(steps)
