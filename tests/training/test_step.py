"""A step in micro-batches has the gradient of the full batch, whatever the model drops out, adapts or recomputes."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from support.contrastive_steps import (
    Gradients,
    assert_equal_gradients,
    golden_model,
    golden_pairs,
    gradients,
    make_step,
    take_step,
    with_lora,
)
from torch import nn

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.training.batch import MicroBatch, hash_seed
from mmeb.training.loss import info_nce
from mmeb.training.recipe import Recipe
from mmeb.training.step import Embedder, contrastive_step

RECIPE = Recipe("qwen2-vl", batch_size=6, temperature=0.1, symmetric=True)
# Questions on images, captions, and images with a change: images and texts on both sides, and two hard negatives.
PAIRS = golden_pairs()[:6]


def _demo() -> EmbeddingModel:
    return DemoModel.new(DemoConfig(dim=32, layers=2), seed=0, device=torch.device("cpu"))


def _checkpointed(model: EmbeddingModel) -> EmbeddingModel:
    model.module.gradient_checkpointing_enable(  # type: ignore[operator]
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    return model


MODELS: dict[str, Callable[[], EmbeddingModel]] = {
    "demo": _demo,
    "phi3_v": lambda: golden_model("phi3_v", num_crops="1"),
    "qwen2_vl": lambda: golden_model("qwen2_vl"),
    "lora": lambda: with_lora(golden_model("qwen2_vl")),
    "dora": lambda: with_lora(golden_model("phi3_v", num_crops="1"), dora=True),
    "checkpointing": lambda: _checkpointed(with_lora(golden_model("qwen2_vl"))),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> EmbeddingModel:
    return MODELS[request.param]()


def _plainly(model: EmbeddingModel, recipe: Recipe) -> tuple[float, Gradients]:
    """Loss and gradient by the book: all items embedded in one graph, one backward pass."""
    embedder = Embedder(model).train()
    embedder.zero_grad()
    batch = make_step(model, PAIRS, recipe)
    vectors = torch.zeros(batch.plan.pairing.n_items, model.dim)
    for micro_batches in batch.first_pass():
        for each in micro_batches:
            seed = hash_seed(recipe.seed, 0, each.number)
            vectors = vectors.index_add(0, torch.from_numpy(each.positions), embedder([each.inputs], [seed])[0][0])
    pairing = batch.plan.pairing
    loss = info_nce(
        vectors[pairing.queries],
        vectors[pairing.candidates],
        torch.arange(len(pairing.queries)),
        torch.from_numpy(pairing.same),
        recipe.temperature,
        symmetric=recipe.symmetric,
    )
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), gradients(embedder)


@pytest.mark.parametrize("size", [1, 2, 3, None])
def test_the_gradient_of_micro_batches_is_that_of_the_full_batch(model: EmbeddingModel, size: int | None) -> None:
    loss, full = _plainly(model, RECIPE)
    outcome, cached = take_step(model, PAIRS, replace(RECIPE, micro_batch_size=size))
    assert outcome.loss == pytest.approx(loss, rel=1e-5)
    assert_equal_gradients(cached, full)


def _dropping(name: str, *, dropout: float = 0.3) -> EmbeddingModel:
    if name == "dora":
        return with_lora(golden_model("phi3_v", num_crops="1"), dora=True, dropout=dropout)
    model = with_lora(golden_model("qwen2_vl"), dropout=dropout)
    return _checkpointed(model) if name == "checkpointing" else model


@pytest.mark.parametrize("name", ["lora", "dora", "checkpointing"])
def test_both_passes_drop_the_same_units(name: str) -> None:
    model, recipe = _dropping(name), replace(RECIPE, micro_batch_size=2)
    loss, full = _plainly(model, recipe)
    outcome, cached = take_step(model, PAIRS, recipe)
    assert outcome.loss == pytest.approx(loss, rel=1e-6)
    assert_equal_gradients(cached, full)
    assert loss != pytest.approx(take_step(_dropping(name, dropout=0), PAIRS, recipe)[0].loss, rel=1e-3)


def test_what_is_not_kept_for_the_second_pass_is_prepared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs, recipe = golden_model("qwen2_vl"), golden_pairs(), Recipe("qwen2-vl", micro_batch_size=2)
    kept = take_step(model, pairs, recipe)
    for room in (0, 100_000):
        monkeypatch.setattr("mmeb.training.batch._KEPT", room)
        outcome, gradients = take_step(model, pairs, recipe)
        assert outcome == kept[0]
        assert all(np.array_equal(gradients[name], gradient) for name, gradient in kept[1].items())


def test_an_image_that_is_lost_before_the_second_pass_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A blank image in its stead would have another gradient than the vector that the loss saw."""
    Image.new("RGB", (8, 8)).save(tmp_path / "lost.png")
    query = Item("<|image_1|>\n", image=tmp_path / "lost.png", role=Role.QUERY)
    pairs = [replace(PAIRS[0], query=query), *PAIRS[1:]]
    monkeypatch.setattr("mmeb.training.batch._KEPT", 0)
    batch = make_step(_demo(), pairs, replace(RECIPE, micro_batch_size=1))
    first_pass = batch.first_pass

    def losing() -> Iterator[list[MicroBatch]]:
        yield from first_pass()
        (tmp_path / "lost.png").write_bytes(b"")

    monkeypatch.setattr(batch, "first_pass", losing)
    with pytest.raises(MmebError, match=r"lost\.png .* was read in the same step before"):
        contrastive_step(Embedder(_demo()), batch, RECIPE, Accelerator(cpu=True))


def test_what_is_dropped_depends_on_seed_and_step_and_leaves_the_random_state_alone() -> None:
    model, recipe = with_lora(golden_model("qwen2_vl"), dropout=0.3), replace(RECIPE, micro_batch_size=3)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    loss = take_step(model, PAIRS, recipe)[0].loss
    assert torch.equal(torch.rand(3), expected)
    assert take_step(model, PAIRS, recipe)[0].loss == loss
    assert take_step(model, PAIRS, recipe, step=1)[0].loss != loss
    assert take_step(model, PAIRS, replace(recipe, seed=1))[0].loss != loss


class _Counting(nn.Module):
    """Notes for each forward pass whether it keeps a graph, and how many batches it has."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        self.passes: list[tuple[bool, int]] = []

    def forward(self, *arguments: list[object]) -> object:
        self.passes.append((torch.is_grad_enabled(), len(arguments[0])))
        return self.embedder(*arguments)


@pytest.mark.parametrize(("size", "passes"), [(None, 1), (100, 2), (4, 4)])
def test_every_forward_pass_but_the_last_is_made_twice(size: int | None, passes: int) -> None:
    """A micro-batch is of items with an image, or without."""
    model = _demo()
    recipe = replace(RECIPE, micro_batch_size=size)
    counting = _Counting(Embedder(model))
    contrastive_step(counting, make_step(model, PAIRS, recipe), recipe, Accelerator(cpu=True))
    if size is None:
        assert counting.passes == [(True, 2)]
    else:
        graphs = [False] * (passes - 1) + [True] + [True] * (passes - 1)
        assert counting.passes == [(graph, 1) for graph in graphs]


def test_a_learned_temperature_has_the_gradient_of_the_loss() -> None:
    model, recipe = _demo(), replace(RECIPE, learn_temperature=True, micro_batch_size=3)
    outcome, found = take_step(model, PAIRS, recipe)
    assert outcome.temperature == pytest.approx(0.1)
    step = 1e-3
    nearby = [replace(recipe, temperature=0.1 * math.exp(sign * step)) for sign in (1, -1)]
    above, below = (take_step(model, PAIRS, recipe)[0].loss for recipe in nearby)
    assert found["log_temperature"].item() == pytest.approx((above - below) / (2 * step), rel=1e-2)
    assert_equal_gradients(
        {name: gradient for name, gradient in found.items() if name != "log_temperature"},
        take_step(model, PAIRS, replace(RECIPE, micro_batch_size=3))[1],
    )


def test_a_learned_temperature_stays_above_a_hundredth_and_can_rise_again() -> None:
    model, recipe = _demo(), replace(RECIPE, learn_temperature=True, temperature=1e-4)
    outcome, found = take_step(model, PAIRS, recipe)
    assert outcome.temperature == pytest.approx(0.01)
    assert found["log_temperature"].item() < 0  # the loss falls as it rises


def test_the_gradient_adds_to_what_is_there() -> None:
    model, recipe = _demo(), replace(RECIPE, micro_batch_size=3)
    _, once = take_step(model, PAIRS, recipe)
    embedder = Embedder(model)
    embedder.zero_grad()
    for _ in range(2):
        contrastive_step(embedder, make_step(model, PAIRS, recipe), recipe, Accelerator(cpu=True))
    assert_equal_gradients(gradients(embedder), {name: 2 * gradient for name, gradient in once.items()})


def _with_broken_image(folder: Path, side: str) -> list[TrainPair]:
    """The pairs, of which row 4 has a file that is no image."""
    (folder / "broken.png").write_bytes(b"no image")
    pairs = list(PAIRS)
    broken = Item("<|image_1|>\n", image=folder / "broken.png", role=Role.QUERY if side == "query" else Role.CANDIDATE)
    changes = {
        "query": {"query": broken},
        "positive": {"positives": (broken,)},
        "negative": {"negatives": (broken,)},
    }
    pairs[4] = replace(pairs[4], **changes[side])  # type: ignore[arg-type]
    return pairs


@pytest.mark.parametrize("size", [None, 3])
@pytest.mark.parametrize("side", ["query", "positive"])
def test_a_row_that_cannot_be_read_is_left_out(tmp_path: Path, side: str, size: int | None) -> None:
    model, recipe = _demo(), replace(RECIPE, micro_batch_size=size, negatives=0)
    outcome, found = take_step(model, _with_broken_image(tmp_path, side), recipe, skip_bad_rows=True)
    others = [pair for row, pair in enumerate(PAIRS) if row != 4]
    expected, rest = take_step(model, others, recipe)
    assert (outcome.skipped_rows, outcome.unreadable) == ((4,), 1)
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-6)
    assert_equal_gradients(found, rest)


def test_a_hard_negative_that_cannot_be_read_costs_no_row(tmp_path: Path) -> None:
    model, pairs = _demo(), _with_broken_image(tmp_path, "negative")
    outcome, _ = take_step(model, pairs, RECIPE, skip_bad_rows=True)
    pairs[4] = replace(pairs[4], negatives=())
    assert (outcome.skipped_rows, outcome.unreadable) == ((), 1)
    assert outcome.loss == pytest.approx(take_step(model, pairs, RECIPE)[0].loss, rel=1e-6)


def test_an_image_whose_size_cannot_be_read_is_left_out_too(tmp_path: Path) -> None:
    """Phi-3.5-V asks for the size of an image before it is read."""
    pairs = _with_broken_image(tmp_path, "query")
    outcome, _ = take_step(
        golden_model("phi3_v", num_crops="1"), pairs, replace(RECIPE, micro_batch_size=4), skip_bad_rows=True
    )
    assert outcome.skipped_rows == (4,)


def test_an_image_that_cannot_be_read_is_an_error_unless_rows_may_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"broken.png can't be decoded.*leave such rows out with --skip-bad-rows\.$"):
        take_step(_demo(), _with_broken_image(tmp_path, "query"), RECIPE)


def test_a_batch_of_which_no_row_is_left_is_an_error(tmp_path: Path) -> None:
    pairs = [replace(pair, positives=_with_broken_image(tmp_path, "positive")[4].positives) for pair in PAIRS]
    with pytest.raises(MmebError, match=r"No row of the batch of step 0 can be used: .*broken.png"):
        take_step(_demo(), pairs, RECIPE, skip_bad_rows=True)


@pytest.fixture
def other_precision() -> Iterator[None]:
    """The library keeps the precision of the process's first accelerator."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


@pytest.mark.usefixtures("other_precision")
def test_half_precision_goes_through_the_accelerator() -> None:
    """Under bf16 autocast the loss stays near that of float32, and the weights' gradients are float32."""
    model, recipe = _demo(), replace(RECIPE, micro_batch_size=3)
    expected, full = take_step(model, PAIRS, recipe)
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    embedder = accelerator.prepare(Embedder(model).train())
    embedder.zero_grad()
    outcome = contrastive_step(embedder, make_step(model, PAIRS, recipe), recipe, accelerator)
    assert outcome.loss != expected.loss
    assert outcome.loss == pytest.approx(expected.loss, rel=0.02)
    found = gradients(embedder)
    assert all(gradient.dtype == np.float32 for gradient in found.values())
    assert_equal_gradients(found, full, 0.05)
