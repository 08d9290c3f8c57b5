"""Which pairs make a batch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, repeat
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.tasks.train_subsets import TRAIN_SUBSETS
from mmeb.training.dealing import draw_groups
from mmeb.training.recipe import Recipe

_CHUNK = 1024  # steps whose chances are drawn at once


class Subset(Protocol):
    """What is to be known of a subset: its name, and (n_rows,) which rows have equal targets."""

    @property
    def name(self) -> str: ...
    @property
    def target_ids(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Draw:
    """The pairs of one step over all processes: (subset, row), both counted from 0."""

    step: int
    rows: list[tuple[int, int]]


@dataclass(frozen=True)
class BatchSampler:
    """The batches of a run from step `start` on; the same for any number of processes, whatever step it starts at.

    A batch is of one subset (`homogeneous`), of parts of `interleave` pairs that are of one subset each
    (`interleaved`), or of pairs of all subsets (`mixed`). Subsets come by chance in proportion to their pairs times
    their weight, which is 1 where `weights` names none. Within a subset every pair is drawn once before any is drawn
    again, and no batch (or part) has a target twice where the data allow it; where they don't, as with few classes,
    targets repeat as evenly as can be.

    Raises MmebError for a batch of one, a subset that is smaller than a batch (or part), an `interleave` that does not
    divide the batch, and a weight that is not above 0 or names no subset.
    """

    subsets: Sequence[Subset]
    batch_size: int
    steps: int
    seed: int = 0
    batches: Literal["homogeneous", "interleaved", "mixed"] = "homogeneous"
    interleave: int = 64
    weights: Mapping[str, float] = field(default_factory=dict)
    start: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise MmebError("The batch size is to be 2 or more: a pair's negatives are the other pairs of its batch.")
        if self.batches == "interleaved" and (self.interleave < 1 or self.batch_size % self.interleave):
            raise MmebError(
                f"A batch of {self.batch_size} can't be made of parts of {self.interleave}: let --interleave divide "
                "--batch-size."
            )
        for name, weight in self.weights.items():
            if name not in {*TRAIN_SUBSETS, *(subset.name for subset in self.subsets)}:
                raise MmebError(f"There is no subset {name!r} to give a weight to.")
            if not weight > 0:
                raise MmebError(f"The weight of {name} is to be above 0, not {weight}; --subsets leaves one out.")
        for subset, share in zip(self.subsets, self._shares, strict=True):
            needed = int(np.ceil(share)) if self.batches == "mixed" else self._part
            if (size := len(subset.target_ids)) < needed:
                what, option = _LEAST[self.batches]
                raise MmebError(
                    f"{subset.name} has {size} pairs, which is less than {what.format(needed)}: lower {option}, or "
                    f"leave {subset.name} out with --subsets."
                )

    def __len__(self) -> int:
        return max(0, self.steps - self.start)

    def __iter__(self) -> Iterator[Draw]:
        streams = [
            draw_groups(subset.target_ids, self._sizes(number), (self.seed, number))
            for number, subset in enumerate(self.subsets)
        ]
        for step, parts in zip(range(self.steps), self._parts(), strict=False):
            groups = parts > 0 if self.batches == "mixed" else parts
            drawn = [(number, next(streams[number])) for number in np.repeat(np.arange(len(groups)), groups).tolist()]
            if step >= self.start:
                yield Draw(step, [(number, row) for number, group in drawn for row in group.tolist()])

    def _sizes(self, number: int) -> Iterator[int]:
        """How many rows a subset gives to one group of a batch after another."""
        if self.batches != "mixed":
            return repeat(self._part)
        return (int(parts[number]) for parts in self._parts() if parts[number])

    def _parts(self) -> Iterator[NDArray[np.int64]]:
        """Step after step, how many parts of a batch each subset gives (n_subsets,): its share, rounded by chance."""
        edges = np.cumsum(self._shares)
        edges[-1] = self.batch_size // self._part
        for chunk in count():
            chances = np.random.default_rng((self.seed, len(self.subsets), chunk)).random(_CHUNK)
            yield from np.diff(np.floor(edges + chances[:, None]), prepend=0, axis=1).astype(np.int64)

    @property
    def _part(self) -> int:
        """How many pairs of one batch are of one subset for sure."""
        return {"homogeneous": self.batch_size, "interleaved": self.interleave, "mixed": 1}[self.batches]

    @property
    def _shares(self) -> NDArray[np.float64]:
        """(n_subsets,), how many parts of a batch each subset gives on average."""
        pairs = np.array([len(subset.target_ids) * self.weights.get(subset.name, 1) for subset in self.subsets])
        shares: NDArray[np.float64] = pairs / pairs.sum() * (self.batch_size // self._part)
        return shares


def batches_of(subsets: Sequence[Subset], recipe: Recipe, start: int = 0) -> BatchSampler:
    """A recipe's batches, from a step on. Raises MmebError as `BatchSampler` does."""
    return BatchSampler(
        subsets,
        recipe.batch_size,
        recipe.steps,
        seed=recipe.seed,
        batches=recipe.batches,
        interleave=recipe.interleave,
        weights=recipe.weights,
        start=start,
    )


# What a subset has to fill, and what to lower where it can't.
_LEAST = {
    "homogeneous": ("a batch of {}", "--batch-size"),
    "interleaved": ("a part of {}", "--interleave"),
    "mixed": ("its share of {} in a batch", "--batch-size"),
}
