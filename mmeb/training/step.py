"""A contrastive step over any number of micro-batches and processes, with the gradient of the full batch.

GradCache, after Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021): embed all
items without a graph, take the loss's gradient at the representations, then embed each micro-batch again and
backpropagate from there to the weights.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.training.batch import MicroBatch, Pairing, StepBatch, hash_seed
from mmeb.training.loss import Measures, info_nce, measure
from mmeb.training.recipe import Recipe

_TEMPERATURE_FLOOR = 0.01  # of a learned temperature, as in CLIP


@dataclass(frozen=True)
class StepResult:
    """The loss of a step and what was measured; the same in every process.

    `items` counts the unique items and `tokens` their real tokens, over all processes. `skipped_rows` are the rows, by
    place in the batch, that were left out because an image of theirs can't be read; `unreadable` counts such items.
    """

    loss: float
    measures: Measures
    temperature: float
    items: int
    tokens: int
    skipped_rows: tuple[int, ...]
    unreadable: int


class Embedder(nn.Module):
    """A model's forward pass as a module, which accelerate prepares, wraps and shards; and the learned temperature.

    `log_temperature` is float32 (1,), or None; one element rather than a scalar, which could not be sharded.
    `_no_split_modules` are the layers that FSDP shards by, under the name that transformers gives them.
    """

    def __init__(self, model: EmbeddingModel, temperature: float | None = None) -> None:
        """`temperature` is where a learned one starts."""
        super().__init__()
        self.weights = model.module
        self.model = model
        start = None if temperature is None else torch.tensor([math.log(temperature)], device=model.device)
        self.log_temperature = None if start is None else nn.Parameter(start)
        layers = {name for part in self.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        self._no_split_modules = sorted(layers & {type(part).__name__ for part in self.modules()})

    def forward(self, batches: Sequence[Batch], seeds: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        """Unit vectors (batch.size, dim) of each batch, and the logarithm of the temperature where it is learned.

        Each batch runs under the random state of its seed, so that another pass over it drops the very same units;
        the state outside stays as it was.
        """
        # torch.manual_seed seeds all devices, and writes a stack trace down where a GPU's library finds no GPU.
        set_seed = torch.default_generator.manual_seed if self.model.device.type == "cpu" else torch.manual_seed
        vectors = []
        for batch, seed in zip(batches, seeds, strict=True):
            with torch.random.fork_rng([self.model.device] if self.model.device.type == "cuda" else []):
                set_seed(seed)
                vectors.append(self.model.embed(batch))
        # The temperature comes out of the forward pass like the vectors: a wrapper then reduces its gradient too.
        return vectors, None if self.log_temperature is None else self.log_temperature.clone()


def contrastive_step(model: nn.Module, batch: StepBatch, recipe: Recipe, accelerator: Accelerator) -> StepResult:
    """Add the gradient of a batch's loss to the weights', each process running its part of the batch.

    `model` is an `Embedder` as the accelerator wraps it. The gradient, averaged over processes by the wrapper, is that
    of the full batch's loss, and is synchronised once. All forward passes but the last are made twice, first without a
    graph; a single one is made once. The device holds the graph of one pass at a time, and the representations.

    Rows with an unreadable image are left out. Raises MmebError, in every process, where no row is left.
    """
    passes = len(batch.plan.passes)

    def forward(micro_batches: Sequence[MicroBatch]) -> tuple[list[Tensor], Tensor | None]:
        seeds = [hash_seed(recipe.seed, batch.plan.step, each.number) for each in micro_batches]
        inputs = [each.inputs.to(accelerator.device) for each in micro_batches if each.inputs is not None]
        embedded: tuple[list[Tensor], Tensor | None] = model(inputs, seeds)
        return embedded

    representations, tokens = [], 0
    for number, micro_batches in enumerate(batch.first_pass()):
        with torch.set_grad_enabled(number == passes - 1), _synchronising(accelerator, model, passes == 1):
            vectors, log_temperature = forward(micro_batches)
        representations += [vector.detach() for vector in vectors]
        tokens += sum(each.inputs.tokens for each in micro_batches if each.inputs is not None and not each.filler)

    items, tokens = _gather(batch, representations, tokens, accelerator)
    items.requires_grad_()
    learned = None if log_temperature is None else _floored(log_temperature)
    temperature = recipe.temperature if learned is None else learned.exp()
    readable = items.detach().any(dim=1)  # a unit vector is nowhere all zero
    valid, selected = _select(batch.plan.pairing, items, readable)
    if not valid.any():
        raise MmebError(f"No row of the batch of step {batch.plan.step} can be used: {batch.all_errors()[0]}")
    queries, candidates, targets, same = selected
    masked = same if recipe.mask_equal_targets else torch.zeros_like(same)
    loss = info_nce(queries, candidates, targets, masked, temperature, symmetric=recipe.symmetric)
    loss.backward()  # type: ignore[no-untyped-call]
    assert items.grad is not None
    gradient = items.grad * accelerator.num_processes  # wrappers take the mean over processes

    def backward(micro_batches: Sequence[MicroBatch], vectors: Sequence[Tensor], is_last: bool) -> None:
        surrogate = _surrogate(micro_batches, vectors, gradient)
        if is_last and log_temperature is not None and learned is not None and learned.grad is not None:
            surrogate = surrogate + (log_temperature * learned.grad).sum()
        accelerator.backward(surrogate)

    with _synchronising(accelerator, model, passes == 1):
        backward(batch.plan.passes[-1], vectors, passes == 1)  # the last pass has its graph already
    del vectors
    for number, micro_batches in enumerate(batch.second_pass()):
        with _synchronising(accelerator, model, number == passes - 2):
            vectors, log_temperature = forward(micro_batches)
            backward(micro_batches, vectors, number == passes - 2)
        del vectors
    return StepResult(
        loss=loss.item(),
        measures=measure(queries, candidates, targets, masked),
        temperature=temperature if isinstance(temperature, float) else temperature.item(),
        items=len(items),
        tokens=tokens,
        skipped_rows=tuple((~valid).nonzero().flatten().tolist()),
        unreadable=int((~readable).sum()),
    )


@contextmanager
def _synchronising(accelerator: Accelerator, model: nn.Module, yes: bool) -> Iterator[None]:
    """Whether a backward pass in here ends with the processes' gradients reduced."""
    if yes:
        yield
        return
    accelerator.sync_gradients = False  # DeepSpeed's wrapper would take an optimizer step
    try:
        with accelerator.no_sync(model):
            yield
    finally:
        accelerator.sync_gradients = True


def _gather(
    batch: StepBatch, representations: Sequence[Tensor], tokens: int, accelerator: Accelerator
) -> tuple[Tensor, int]:
    """All items' vectors, float32 (n_items, dim), zero for an unreadable one, and all tokens: one reduction."""
    n_items, dim, device = batch.plan.pairing.n_items, representations[0].shape[1], accelerator.device
    vectors = torch.zeros(n_items, dim, device=device)
    for each, part in zip(
        (each for each_pass in batch.plan.passes for each in each_pass), representations, strict=True
    ):
        if not each.filler:
            vectors[torch.from_numpy(each.positions).to(device)] = part.float()
    vectors[list(batch.errors)] = 0
    flat = torch.cat([vectors.flatten(), torch.tensor([tokens], dtype=torch.float32, device=device)])
    flat = accelerator.reduce(flat, "sum")
    return flat[:-1].view(n_items, dim), int(flat[-1])


def _select(pairing: Pairing, items: Tensor, readable: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The valid rows, bool (n,), and the queries, candidates, targets and copies of `info_nce` that they have."""
    queries, candidates, same = (
        torch.from_numpy(each).to(items.device) for each in (pairing.queries, pairing.candidates, pairing.same)
    )
    valid = readable[queries] & readable[candidates[: len(queries)]]
    kept = readable[candidates]
    kept[: len(queries)] = valid
    targets = torch.arange(int(valid.sum()), device=items.device)
    return valid, (items[queries[valid]], items[candidates[kept]], targets, same[valid][:, kept])


def _surrogate(micro_batches: Sequence[MicroBatch], vectors: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """A scalar whose gradient at each vector is that of the loss, and at a filler's zero."""
    parts = []
    for each, vector in zip(micro_batches, vectors, strict=True):
        target = gradient[torch.from_numpy(each.positions).to(gradient.device)]
        parts.append((vector * (torch.zeros_like(target) if each.filler else target)).sum())
    return torch.stack(parts).sum()


def _floored(log_temperature: Tensor) -> Tensor:
    """The logarithm of a learned temperature, a leaf; it stays at its floor, but may rise from there."""
    return log_temperature.detach().clamp(min=math.log(_TEMPERATURE_FLOOR)).requires_grad_()
