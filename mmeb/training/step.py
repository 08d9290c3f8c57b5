"""What a step consists of: the global batch's items, and what this process runs of them."""

import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from mmeb.data.images.image import MemoryImage
from mmeb.data.item import Item
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.runtime.batching import BatchLimit
from mmeb.training.recipe import Recipe
from mmeb.training.rounds import Planned, plan_rounds
from mmeb.training.sampler import Draw

_BLANK = 64  # pixels


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
class Work:
    """A sub-batch that is to be prepared: its items, and their positions among the step's items, int64 (n_items,).

    `seed` is what their random state starts from. A filler only keeps this process in step with the others: its
    vectors are dropped.
    """

    items: list[Item]
    positions: NDArray[np.int64]
    seed: int
    filler: bool


@dataclass(frozen=True)
class SubBatch:
    """Work that is prepared: `batch` is what the model takes of it.

    `unreadable` holds the items, by position in the step, whose image could not be read, with what to say of each;
    another image stands in for theirs, so that the plan is kept.
    """

    positions: NDArray[np.int64]
    batch: Batch
    seed: int
    filler: bool
    unreadable: dict[int, str]

    def without_inputs(self) -> "SubBatch":
        """All but what the model takes."""
        return replace(self, batch=replace(self.batch, inputs={}))


@dataclass(frozen=True)
class StepPlan:
    """One process's part of a step.

    `rounds` holds the sub-batches that go through the model in one forward pass each; all processes have equally many
    rounds, with items of the same kinds in the same places. `unreadable` is as in `SubBatch`, of what was found so
    while planning.
    """

    step: int
    pairing: Pairing
    rounds: list[list[Work]]
    unreadable: dict[int, str]


@dataclass(frozen=True)
class StepBatch:
    """A plan, and its rounds as they are prepared, to be gone through once; `again` prepares rounds of it anew."""

    plan: StepPlan
    rounds: Iterable[list[SubBatch]]
    again: Callable[[Sequence[list[Work]]], Iterator[list[SubBatch]]]


class StepPlans(Dataset[StepPlan | MmebError]):
    """A step's draw in, this process's plan of the step out; the whole step is planned in every process.

    A mistake of the user's other than an unreadable image comes back as a value, so that its sentence stays plain.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        subsets: Sequence[Sequence[TrainPair]],
        recipe: Recipe,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._model = model
        self._subsets = subsets
        self._recipe = recipe
        self._rank = rank
        self._world = world

    def __getitem__(self, draw: Draw) -> StepPlan | MmebError:
        try:
            return self._plan(draw)
        except MmebError as error:
            return error

    def _plan(self, draw: Draw) -> StepPlan:
        recipe, model = self._recipe, self._model
        pairs = [self._subsets[subset][row] for subset, row in draw.rows]
        chosen = [
            hash_seed(recipe.seed, draw.step, *place) % len(pair.positives)
            for pair, place in zip(pairs, draw.rows, strict=True)
        ]
        items, pairing = pair_up(pairs, chosen, recipe.negatives)
        unreadable: dict[int, str] = {}
        costs = np.zeros(len(items), dtype=np.int64)
        for position, item in enumerate(items):
            try:
                costs[position] = model.cost(item)
            except MmebError as error:
                items[position] = _stand_in(item, error)
                unreadable[position] = str(error)
                costs[position] = model.cost(items[position])
        groups = [model.group(item) for item in items]

        def work(planned: Planned) -> Work:
            own = [items[position] for position in planned.items]
            return Work(own, planned.items, hash_seed(recipe.seed, draw.step, planned.number), planned.filler)

        rounds = plan_rounds(costs, groups, _limit(recipe), self._world)
        own_rounds = [[work(row[self._rank]) for row in rows] for rows in rounds]
        return StepPlan(draw.step, pairing, own_rounds, unreadable)


def prepare(model: EmbeddingModel, work: Work) -> SubBatch:
    """Preprocess a sub-batch. Raises MmebError for a mistake of the user's other than an unreadable image."""
    items, unreadable = list(work.items), {}
    try:
        batch = model.preprocess(items)
    except MmebError:
        for place, item in enumerate(items):
            try:
                model.preprocess([item])
            except MmebError as error:
                items[place] = _stand_in(item, error)
                unreadable[int(work.positions[place])] = str(error)
        batch = model.preprocess(items)
    return SubBatch(work.positions, batch, work.seed, work.filler, unreadable)


def pair_up(pairs: Sequence[TrainPair], chosen: Sequence[int], negatives: int | None) -> tuple[list[Item], Pairing]:
    """A batch's unique items, and which of them are whose.

    `chosen` says which of its positives each row is trained on; of its hard negatives the first `negatives` count
    (None: all).
    """
    queries = [pair.query for pair in pairs]
    candidates = [pair.positives[choice] for pair, choice in zip(pairs, chosen, strict=True)]
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
