"""A contrastive step over any number of sub-batches and processes, with the gradient of the whole batch.

After Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup" (2021): embed all items
without keeping what a gradient needs, take the loss's gradient at the embeddings, then embed each sub-batch again and
go on from there to the weights.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.training.loss import Measures, info_nce, measure
from mmeb.training.recipe import Recipe
from mmeb.training.step import Pairing, StepBatch, StepPlan, SubBatch

_KEPT = 2 << 30  # bytes of prepared inputs that a process keeps for the second pass; the rest is prepared again
_TEMPERATURE_FLOOR = 0.01  # of a learned temperature, as in CLIP


@dataclass(frozen=True)
class StepOutcome:
    """What a step came to; the same in every process.

    `items` counts the unique items and `tokens` their real tokens, over all processes. `dead_rows` are the rows, by
    place in the batch, that were left out, and `complaints` say which images could not be read. `stop` is whether any
    process asked to stop.
    """

    loss: float
    measures: Measures
    temperature: float
    items: int
    tokens: int
    dead_rows: tuple[int, ...]
    complaints: tuple[str, ...]
    stop: bool


def contrastive_step(
    model: nn.Module,
    batch: StepBatch,
    recipe: Recipe,
    accelerator: Accelerator,
    *,
    stop: bool = False,
    skip_bad_rows: bool = False,
) -> StepOutcome:
    """Add the gradient of a batch's loss to the weights', each process running its own part of the batch.

    `model` is an `Embedder` as the accelerator wraps it. The gradient, averaged over processes by the wrapper, is that
    of the whole batch's loss, and is synchronised once. All rounds but the last go through the model twice; with a
    single round nothing does. The device holds one round at a time, and the embeddings. What is prepared of the other
    rounds waits in the host's memory up to a bound, beyond which it is prepared again: neither grows with the batch.

    Raises MmebError, in every process alike, for an image that can't be read unless `skip_bad_rows` leaves its row out,
    and where no row is left.
    """
    device, plan, last = accelerator.device, batch.plan, len(batch.plan.rounds) - 1
    rounds, embedded, room = [], [], _KEPT
    for number, subs in enumerate(batch.rounds):
        with torch.set_grad_enabled(number == last), _synchronising(accelerator, model, last == 0):
            vectors, log_temperature = _forward(model, subs, device)
        room -= sum(sub.batch.n_bytes for sub in subs)
        rounds.append(subs if room >= 0 and number != last else [sub.without_inputs() for sub in subs])
        embedded += [vector.detach() for vector in vectors]
    subs = [sub for subs in rounds for sub in subs]
    unreadable = plan.unreadable | {position: why for sub in subs for position, why in sub.unreadable.items()}
    gathered = _gather(plan.pairing.n_items, subs, embedded, unreadable, accelerator, stop)
    complaints = _complaints(unreadable, gathered, accelerator, skip_bad_rows)
    alive = _alive(plan, gathered, complaints)

    gathered.vectors.requires_grad_()
    learned = _learned(log_temperature)
    temperature = recipe.temperature if learned is None else learned.exp()
    queries, candidates, targets, same = _select(plan.pairing, gathered, alive)
    masked = same if recipe.mask_equal_targets else torch.zeros_like(same)
    loss = info_nce(queries, candidates, targets, masked, temperature, symmetric=recipe.symmetric)
    loss.backward()  # type: ignore[no-untyped-call]

    assert gathered.vectors.grad is not None
    gradient = gathered.vectors.grad * accelerator.num_processes  # wrappers take the mean over processes
    again = batch.again([plan.rounds[number] for number in range(last) if not _has_inputs(rounds[number])])
    for number in (last, *range(last)):  # the last round's graph is there already
        final = last == 0 or number == last - 1
        with _synchronising(accelerator, model, final):
            if number != last:
                prepared = rounds[number] if _has_inputs(rounds[number]) else _as_before(rounds[number], next(again))
                vectors, log_temperature = _forward(model, prepared, device)
            surrogate = _surrogate(rounds[number], vectors, gradient)
            if final and log_temperature is not None and learned is not None and learned.grad is not None:
                surrogate = surrogate + (log_temperature * learned.grad).sum()
            accelerator.backward(surrogate)
        del vectors, surrogate
    return StepOutcome(
        loss=loss.item(),
        measures=measure(queries, candidates, targets, masked),
        temperature=temperature if isinstance(temperature, float) else temperature.item(),
        items=plan.pairing.n_items,
        tokens=gathered.tokens,
        dead_rows=tuple((~alive).nonzero().flatten().tolist()),
        complaints=complaints,
        stop=gathered.stop,
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


def _has_inputs(subs: Sequence[SubBatch]) -> bool:
    return all(sub.batch.inputs for sub in subs)


def _as_before(subs: Sequence[SubBatch], again: Sequence[SubBatch]) -> Sequence[SubBatch]:
    """`again`. Raises MmebError where an image of it could be read the first time and no longer can."""
    for first, second in zip(subs, again, strict=True):
        if lost := second.unreadable.keys() - first.unreadable.keys():
            why = second.unreadable[min(lost)].rstrip(".")
            raise MmebError(f"{why}; it was read in the same step before: leave the data as it is while a run goes.")
    return again


def _forward(model: nn.Module, subs: Sequence[SubBatch], device: torch.device) -> tuple[list[Tensor], Tensor | None]:
    embedded: tuple[list[Tensor], Tensor | None] = model(
        [sub.batch.to(device) for sub in subs], [sub.seed for sub in subs]
    )
    return embedded


def _surrogate(subs: Sequence[SubBatch], vectors: Sequence[Tensor], gradient: Tensor) -> Tensor:
    """A scalar whose gradient at each vector is that of the loss, and at a filler's zero."""
    parts = []
    for sub, vector in zip(subs, vectors, strict=True):
        wanted = gradient[torch.from_numpy(sub.positions).to(gradient.device)]
        parts.append((vector * (torch.zeros_like(wanted) if sub.filler else wanted)).sum())
    return torch.stack(parts).sum()


@dataclass(frozen=True)
class _Gathered:
    """Of all processes: float32 vectors (n_items, dim), which items could not be read (n_items,), and sums."""

    vectors: Tensor
    unreadable: Tensor
    tokens: int
    stop: bool


def _gather(
    n_items: int,
    subs: Sequence[SubBatch],
    embedded: Sequence[Tensor],
    unreadable: Mapping[int, str],
    accelerator: Accelerator,
    stop: bool,
) -> _Gathered:
    """One reduction of what every process has, the rest of it zero."""
    dim, device = embedded[0].shape[1], accelerator.device
    vectors, bad = torch.zeros(n_items, dim, device=device), torch.zeros(n_items, device=device)
    bad[list(unreadable)] = 1
    tokens = 0
    for sub, part in zip(subs, embedded, strict=True):
        if not sub.filler:
            vectors[torch.from_numpy(sub.positions).to(device)] = part.float()
            tokens += sub.batch.tokens
    own = torch.cat([vectors.flatten(), bad, torch.tensor([tokens, stop], dtype=torch.float32, device=device)])
    flat = accelerator.reduce(own, "sum")
    n_tokens, n_stop = flat[-2:].tolist()
    places = n_items * dim
    return _Gathered(flat[:places].view(n_items, dim), flat[places:-2] > 0, int(n_tokens), n_stop > 0)


def _complaints(
    unreadable: Mapping[int, str], gathered: _Gathered, accelerator: Accelerator, skip_bad_rows: bool
) -> tuple[str, ...]:
    """What every process has to say of images that it could not read; the first one as an error unless they may be."""
    if not gathered.unreadable.any():
        return ()
    complaints = tuple(dict.fromkeys(gather_object(list(unreadable.values()))))
    if not skip_bad_rows:
        raise MmebError(f"{complaints[0].rstrip('.')}: mend it, or leave such rows out with --skip-bad-rows.")
    return complaints


def _alive(plan: StepPlan, gathered: _Gathered, complaints: Sequence[str]) -> Tensor:
    """bool (n,): the rows whose query and positive could be read."""
    queries, candidates, _ = _positions(plan.pairing, gathered.unreadable.device)
    alive = ~(gathered.unreadable[queries] | gathered.unreadable[candidates[: len(queries)]])
    if not alive.any():
        raise MmebError(f"No row of the batch of step {plan.step} can be used: {complaints[0]}")
    return alive


def _select(pairing: Pairing, gathered: _Gathered, alive: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The queries, candidates, targets and copies of `info_nce`, of what could be read."""
    queries, candidates, same = _positions(pairing, alive.device)
    kept = ~gathered.unreadable[candidates]
    kept[: len(queries)] = alive
    targets = torch.arange(int(alive.sum()), device=alive.device)
    return gathered.vectors[queries[alive]], gathered.vectors[candidates[kept]], targets, same[alive][:, kept]


def _positions(pairing: Pairing, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    queries, candidates, same = map(torch.from_numpy, (pairing.queries, pairing.candidates, pairing.same))
    return queries.to(device), candidates.to(device), same.to(device)


def _learned(log_temperature: Tensor | None) -> Tensor | None:
    """The logarithm of a learned temperature, a leaf; it stays at its floor, but may rise from there."""
    if log_temperature is None:
        return None
    return log_temperature.detach().clamp(min=math.log(_TEMPERATURE_FLOOR)).requires_grad_()
