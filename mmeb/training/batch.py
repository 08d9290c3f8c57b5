"""What a step consists of: the global batch's items, which are whose, and what this process runs of them."""

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from accelerate.utils import gather_object
from numpy.typing import NDArray
from PIL import Image

from mmeb.data.images.image import MemoryImage
from mmeb.data.item import Item
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.runtime.batching import BatchLimit, plan_batches
from mmeb.training.recipe import Recipe

_KEPT = 2 << 30  # bytes of prepared inputs that a process keeps for the second pass; the rest is prepared again
_BLANK = 64  # pixels

Rows = Sequence[tuple[int, int]]  # (subset, row), both counted from 0
Prepared = tuple[Batch, dict[int, str]]  # a micro-batch's inputs, and its errors by position in the step
Work = tuple[list[Item], NDArray[np.int64]]  # a micro-batch's items and their positions in the step


@dataclass(frozen=True)
class Pairing:
    """Which of a step's items are queries and candidates of which rows; the same in every process.

    `queries` int64 (n,) and `candidates` int64 (m,) are positions among the `n_items` unique items; candidate i < n is
    the positive of row i, the rest are hard negatives. `same` is bool (n, m), true where a candidate equals one of the
    row's positives in text and image.
    """

    n_items: int
    queries: NDArray[np.int64]
    candidates: NDArray[np.int64]
    same: NDArray[np.bool_]


@dataclass(frozen=True)
class MicroBatch:
    """Items of one group that the model embeds together: their positions among the step's items, int64 (n,).

    `number` is that in the full step's plan. A filler only keeps this process in step with the others: its vectors
    are dropped. `inputs` is what the model takes, once they are prepared.
    """

    positions: NDArray[np.int64]
    number: int
    filler: bool = False
    inputs: Batch | None = None


@dataclass(frozen=True)
class StepPlan:
    """One process's part of a step.

    `passes` are the micro-batches of each forward pass, one each, or all in one pass without a limit on their size; all
    processes have equally many, with items of the same groups in the same places. `errors` says by position which
    images were found unreadable while planning.
    """

    step: int
    items: list[Item]
    pairing: Pairing
    passes: list[list[MicroBatch]]
    errors: dict[int, str]

    def work(self, micro_batch: MicroBatch) -> Work:
        """What must be prepared for a micro-batch."""
        return [self.items[position] for position in micro_batch.positions], micro_batch.positions


class StepBatch:
    """A step's micro-batches with their inputs, as they are prepared: for the first pass, then for the second.

    Inputs of up to `_KEPT` bytes are kept between the two, the others are prepared again: memory does not grow with the
    batch. `errors` says by position which images this process could not read; a blank one stands in for each.
    """

    def __init__(
        self, plan: StepPlan, prepared: Iterator[Prepared], again: Callable[[list[Work]], Iterator[Prepared]]
    ) -> None:
        """`prepared` yields all of the plan's micro-batches, once; `again` prepares some of them anew."""
        self.plan = plan
        self.errors = dict(plan.errors)
        self._prepared = prepared
        self._again = again
        self._kept: list[list[MicroBatch] | None] = []

    def first_pass(self) -> Iterator[list[MicroBatch]]:
        """The micro-batches of each forward pass; all must be taken."""
        room = _KEPT
        for micro_batches in self.plan.passes:
            filled = self._fill(micro_batches, self._prepared)
            room -= sum(each.inputs.n_bytes for each in filled if each.inputs is not None)
            self._kept.append(filled if room >= 0 and len(self._kept) < len(self.plan.passes) - 1 else None)
            yield filled
            del filled

    def second_pass(self) -> Iterator[list[MicroBatch]]:
        """The same, but for those of the last forward pass.

        Raises MmebError where an image could be read in the first pass and no longer can.
        """
        pairs = list(zip(self.plan.passes[:-1], self._kept, strict=False))
        missing = [each for micro_batches, kept in pairs if kept is None for each in micro_batches]
        again = self._again([self.plan.work(each) for each in missing])
        for micro_batches, kept in pairs:
            if kept is not None:
                yield kept
                continue
            known = set(self.errors)
            filled = self._fill(micro_batches, again)
            if lost := self.errors.keys() - known:
                raise MmebError(
                    f"{self.errors[min(lost)].rstrip('.')}; it was read in the same step before: leave the data as it "
                    "is while a run goes."
                )
            yield filled

    def all_errors(self) -> list[str]:
        """What all processes say of unreadable images; a collective call."""
        return list(dict.fromkeys(gather_object(list(self.errors.values()))))

    def _fill(self, micro_batches: Sequence[MicroBatch], prepared: Iterator[Prepared]) -> list[MicroBatch]:
        filled = []
        for each in micro_batches:
            inputs, errors = next(prepared)
            self.errors.update(errors)
            filled.append(replace(each, inputs=inputs))
        return filled


def plan_step(
    model: EmbeddingModel,
    subsets: Sequence[Sequence[TrainPair]],
    recipe: Recipe,
    step: int,
    rows: Rows,
    *,
    rank: int = 0,
    world: int = 1,
) -> StepPlan:
    """This process's plan of a step; the full step is planned in every process.

    Raises MmebError for a mistake of the user's other than an unreadable image.
    """
    pairs = [subsets[subset][row] for subset, row in rows]
    choices = [
        hash_seed(recipe.seed, step, *place) % len(pair.positives) for pair, place in zip(pairs, rows, strict=True)
    ]
    items, pairing = pair_up(pairs, choices, recipe.negatives)
    errors: dict[int, str] = {}
    costs = np.zeros(len(items), dtype=np.int64)
    for position, item in enumerate(items):
        try:
            costs[position] = model.cost(item)
        except MmebError as error:
            items[position] = _stand_in(item, error)
            errors[position] = str(error)
            costs[position] = model.cost(items[position])
    passes = plan_passes(costs, [model.group(item) for item in items], _limit(recipe), world)
    return StepPlan(step, items, pairing, [[row[rank] for row in rows] for rows in passes], errors)


def prepare(model: EmbeddingModel, work: Work) -> Prepared:
    """Preprocess a micro-batch, with a blank image for each that can't be read.

    Raises MmebError for a mistake of the user's other than an unreadable image.
    """
    items, errors = list(work[0]), {}
    try:
        return model.preprocess(items), {}
    except MmebError:
        for place, item in enumerate(items):
            try:
                model.preprocess([item])
            except MmebError as error:
                items[place] = _stand_in(item, error)
                errors[int(work[1][place])] = str(error)
        return model.preprocess(items), errors


def pair_up(pairs: Sequence[TrainPair], choices: Sequence[int], negatives: int | None) -> tuple[list[Item], Pairing]:
    """A batch's unique items, and which of them are whose.

    `choices` says which of its positives each row is trained on; of its hard negatives the first `negatives` count
    (None: all).
    """
    queries = [pair.query for pair in pairs]
    candidates = [pair.positives[choice] for pair, choice in zip(pairs, choices, strict=True)]
    candidates += [item for pair in pairs for item in pair.negatives[:negatives]]
    position = {item: number for number, item in enumerate(dict.fromkeys([*queries, *candidates]))}
    contents: dict[Hashable, int] = {}
    content = np.array([contents.setdefault((item.text, item.image), len(contents)) for item in candidates])
    same = content[: len(pairs), None] == content[None, :]
    for row, pair in enumerate(pairs):
        for other in pair.positives if len(pair.positives) > 1 else ():
            same[row] |= content == contents.get((other.text, other.image), -1)
    return list(position), Pairing(
        len(position),
        np.array([position[item] for item in queries], dtype=np.int64),
        np.array([position[item] for item in candidates], dtype=np.int64),
        same,
    )


def plan_passes(
    costs: NDArray[np.int64], groups: Sequence[Hashable], limit: BatchLimit | None, world: int
) -> list[list[list[MicroBatch]]]:
    """Forward passes of rows of micro-batches: a row has one for each process, all of one group and of similar cost.

    With a limit a pass is one row, and which items run together does not depend on `world`. Without, there is one pass,
    in which each group is partitioned among the processes. Where a group runs out, the cheapest item of it fills the
    row up: all processes run the same modules in the same order, whichever items they have. The costliest pass is last.
    """
    if limit is not None:
        batches = plan_batches(costs, groups, limit)
    else:
        full = plan_batches(costs, groups, BatchLimit(max(1, len(costs))))
        batches = [batch[process::world] for batch in full for process in range(min(world, len(batch)))]
    by_group: dict[Hashable, list[MicroBatch]] = {}
    for number, batch in enumerate(batches):
        by_group.setdefault(groups[batch[0]], []).append(MicroBatch(batch.astype(np.int64), number))
    rows = []
    for members in by_group.values():
        filler = MicroBatch(members[-1].positions[-1:], members[-1].number, filler=True)
        for start in range(0, len(members), world):
            row = members[start : start + world]
            rows.append(row + [filler] * (world - len(row)))
    rows.sort(key=lambda row: int(costs[row[0].positions[0]]) * len(row[0].positions))
    return [[row] for row in rows] if limit is not None else [rows]


def hash_seed(*numbers: int) -> int:
    """A seed that follows from some numbers and from nothing else, 63 bits."""
    digest = blake2b("/".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _limit(recipe: Recipe) -> BatchLimit | None:
    if recipe.micro_batch_size is None and recipe.micro_batch_tokens is None:
        return None
    return BatchLimit(recipe.micro_batch_size or sys.maxsize, recipe.micro_batch_tokens)


def _stand_in(item: Item, error: MmebError) -> Item:
    """The item with a blank image for the one that can't be read; raises `error` where it is not the image's fault."""
    if item.image is None:
        raise error
    blank = MemoryImage(Image.new("RGB", (_BLANK, _BLANK)))
    return Item(item.prompt, item.instruction, item.text, blank, item.role)
