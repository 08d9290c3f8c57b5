"""What a step consists of: the global batch's items, and which of them this process runs when."""

import sys
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from mmeb.data.images import MemoryImage
from mmeb.data.item import Item
from mmeb.data.train import TrainPair
from mmeb.errors import MmebError
from mmeb.evaluation.batching import BatchLimit, plan_batches
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.training.recipe import Recipe
from mmeb.training.sampler import Draw

_BLANK = 64  # pixels


@dataclass(frozen=True)
class SubBatch:
    """Items that run together: their positions among the step's items, int64 (batch.size,), and what the model takes.

    `seed` is what their random state starts from. A filler only keeps this process in step with the others: its
    vectors are dropped.
    """

    items: NDArray[np.int64]
    batch: Batch
    seed: int
    filler: bool = False


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
class StepBatch:
    """One process's part of a step.

    `rounds` holds the sub-batches that go through the model in one forward pass each; all processes have equally many
    rounds, with items of the same kinds in the same places. `unreadable` holds the items, by position, that this
    process could not read, with what to say of each; another image stands in for theirs, so that the plan is kept.
    """

    step: int
    pairing: Pairing
    rounds: list[list[SubBatch]]
    unreadable: dict[int, str]

    def pin_memory(self) -> "StepBatch":
        rounds = [[replace(sub, batch=sub.batch.pin_memory()) for sub in subs] for subs in self.rounds]
        return replace(self, rounds=rounds)


class Steps(Dataset[StepBatch | MmebError]):
    """A step's draw in, this process's part of the step out; for a DataLoader's workers.

    Every process plans the whole step and preprocesses its own part. A mistake of the user's other than an unreadable
    image comes back as a value, so that its sentence stays plain.
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

    def __getitem__(self, draw: Draw) -> StepBatch | MmebError:
        try:
            return self._make(draw)
        except MmebError as error:
            return error

    def _make(self, draw: Draw) -> StepBatch:
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
        rounds = [
            [self._sub_batch(items, row[self._rank], draw.step, unreadable) for row in rows]
            for rows in plan_rounds(costs, groups, _limit(recipe), self._world)
        ]
        return StepBatch(draw.step, pairing, rounds, unreadable)

    def _sub_batch(self, items: list[Item], planned: "Planned", step: int, unreadable: dict[int, str]) -> SubBatch:
        try:
            batch = self._model.preprocess([items[position] for position in planned.items])
        except MmebError:
            for position in map(int, planned.items):
                try:
                    self._model.preprocess([items[position]])
                except MmebError as error:
                    items[position] = _stand_in(items[position], error)
                    unreadable[position] = str(error)
            batch = self._model.preprocess([items[position] for position in planned.items])
        return SubBatch(planned.items, batch, hash_seed(self._recipe.seed, step, planned.number), planned.filler)


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


@dataclass(frozen=True)
class Planned:
    """Items that are to run together, int64 (n,), and their sub-batch's number in the whole step's plan."""

    items: NDArray[np.int64]
    number: int
    filler: bool = False


def plan_rounds(
    costs: NDArray[np.int64], groups: Sequence[Hashable], limit: BatchLimit | None, world: int
) -> list[list[list[Planned]]]:
    """Rounds of rows of sub-batches: a row has one for each process, all of one group and of similar cost.

    With a limit a round is one row, and which items run together does not depend on `world`. Without, there is one
    round, in which each group is shared out among the processes. Where a group runs out, the cheapest item of it fills
    the row up: all processes run the same modules in the same order, whoever has what. The costliest round comes last.
    """
    if limit is not None:
        batches = plan_batches(costs, groups, limit)
    else:
        whole = plan_batches(costs, groups, BatchLimit(max(1, len(costs))))
        batches = [batch[process::world] for batch in whole for process in range(min(world, len(batch)))]
    by_group: dict[Hashable, list[Planned]] = {}
    for number, batch in enumerate(batches):
        by_group.setdefault(groups[batch[0]], []).append(Planned(batch.astype(np.int64), number))
    rows = []
    for planned in by_group.values():
        filler = Planned(planned[-1].items[-1:], planned[-1].number, filler=True)
        for start in range(0, len(planned), world):
            row = planned[start : start + world]
            rows.append(row + [filler] * (world - len(row)))
    rows.sort(key=lambda row: int(costs[row[0].items[0]]) * len(row[0].items))
    return [[row] for row in rows] if limit is not None else [rows]


def hash_seed(*numbers: int) -> int:
    """A seed that follows from some numbers and from nothing else, 63 bits."""
    digest = blake2b("/".join(map(str, numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _limit(recipe: Recipe) -> BatchLimit | None:
    if recipe.sub_batch_size is None and recipe.sub_batch_tokens is None:
        return None
    return BatchLimit(recipe.sub_batch_size or sys.maxsize, recipe.sub_batch_tokens)


def _stand_in(item: Item, error: MmebError) -> Item:
    """The item with a blank image for the one that can't be read; raises `error` where it is not the image's fault."""
    if item.image is None:
        raise error
    blank = MemoryImage(Image.new("RGB", (_BLANK, _BLANK)))
    return Item(item.prompt, item.instruction, item.text, blank, item.role)
