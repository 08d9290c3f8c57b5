"""Stratified sampling: which pairs make a batch, computed from the step's number alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.inputs import suggest
from mmeb.tasks.train_subsets import TRAIN_SUBSETS
from mmeb.training.recipe import Recipe

# What a subset must fill, and the setting to lower where it can't.
_REQUIRED = {
    "homogeneous": ("a batch of {}", "batch_size"),
    "interleaved": ("a part of {}", "interleave"),
    "mixed": ("its share of {} in a batch", "batch_size"),
}


class Subset(Protocol):
    """What the sampler needs of a subset: its name, and (n_rows,) which rows have equal targets."""

    @property
    def name(self) -> str: ...
    @property
    def target_ids(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class BatchSampler:
    """The batches of a run by step: pairs as (subset, row), both counted from 0; the same for any number of processes.

    A batch is of one subset (`homogeneous`), of parts of `interleave` pairs that are of one subset each
    (`interleaved`), or of pairs of all subsets (`mixed`). Subsets come by chance in proportion to their pairs times
    their weight, which is 1 where `weights` names none.

    A pass over a subset is a permutation of its pairs, partitioned into groups of one batch (or part) each, such that
    every target's pairs are spread over them evenly: no group has a target twice, unless it has more pairs than the
    pass has groups. A pass leaves out the pairs, chosen by chance, that do not fill a group.

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
    _passes: dict[int, tuple[int, NDArray[np.int64]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise MmebError("The batch size must be 2 or more: a pair's negatives are the other pairs of its batch.")
        if self.batches == "interleaved" and (self.interleave < 1 or self.batch_size % self.interleave):
            raise MmebError(
                f"A batch of {self.batch_size} can't be made of parts of {self.interleave}: let interleave divide "
                "batch_size."
            )
        names = [subset.name for subset in self.subsets]
        for name, weight in self.weights.items():
            if name not in {*TRAIN_SUBSETS, *names}:
                hint = suggest(name, names) or f"there are {', '.join(names)}."
                raise MmebError(f"There is no subset {name!r} to give a weight to: {hint}")
            if not weight > 0:
                raise MmebError(f"The weight of {name} must be above 0, not {weight}; --subsets leaves one out.")
        for subset, size in zip(self.subsets, self._group_sizes.tolist(), strict=True):
            if (n_pairs := len(subset.target_ids)) < size:
                what, setting = _REQUIRED[self.batches]
                raise MmebError(
                    f"{subset.name} has {n_pairs} pairs, which is less than {what.format(size)}: lower {setting}, or "
                    f"leave {subset.name} out with --subsets."
                )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[tuple[int, int]]:
        """The pairs of a step, computed without those before it."""
        counts, earlier = self._counts[step], self._earlier[step]
        pairs: list[tuple[int, int]] = []
        for subset in np.flatnonzero(counts).tolist():
            count, first = int(counts[subset]), int(earlier[subset])
            if self.batches == "mixed":
                rows = self._group(subset, first)[:count]
            else:
                rows = np.concatenate([self._group(subset, first + number) for number in range(count)])
            pairs += [(subset, row) for row in rows.tolist()]
        return pairs

    def _group(self, subset: int, number: int) -> NDArray[np.int64]:
        """The rows of a subset's group, by its number over all passes."""
        targets, size = self.subsets[subset].target_ids, int(self._group_sizes[subset])
        n_groups = len(targets) // size
        pass_number, place = divmod(number, n_groups)
        if self._passes.get(subset, (-1,))[0] != pass_number:
            rng = np.random.default_rng((self.seed, subset, pass_number))
            rows = rng.permutation(len(targets))[: n_groups * size]
            # Sorted by target, in an order by chance, every n_groups-th row is of one group.
            _, classes = np.unique(targets[rows], return_inverse=True)
            order = np.argsort(rng.permutation(len(rows))[classes], kind="stable")
            self._passes[subset] = pass_number, rows[order]
        return self._passes[subset][1][place::n_groups]

    @property
    def _part(self) -> int:
        """How many pairs of one batch are of one subset for sure."""
        return {"homogeneous": self.batch_size, "interleaved": self.interleave, "mixed": 1}[self.batches]

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        """(n_subsets,), how many parts of a batch each subset gives on average."""
        pairs = np.array([len(subset.target_ids) * self.weights.get(subset.name, 1) for subset in self.subsets])
        shares: NDArray[np.float64] = pairs / pairs.sum() * (self.batch_size // self._part)
        return shares

    @cached_property
    def _group_sizes(self) -> NDArray[np.int64]:
        """(n_subsets,), how many rows of a subset go into one batch, or part, at most."""
        if self.batches == "mixed":
            return np.ceil(self._shares).astype(np.int64)
        return np.full(len(self.subsets), self._part)

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """(steps, n_subsets), how many parts of a batch each subset gives: its share, rounded by chance."""
        edges = np.cumsum(self._shares)
        edges[-1] = self.batch_size // self._part
        chances = np.random.default_rng((self.seed, len(self.subsets))).random(self.steps)
        return np.diff(np.floor(edges + chances[:, None]), prepend=0, axis=1).astype(np.int64)

    @cached_property
    def _earlier(self) -> NDArray[np.int64]:
        """(steps, n_subsets), how many groups of a subset the steps before have taken."""
        groups = np.minimum(self._counts, 1) if self.batches == "mixed" else self._counts
        earlier: NDArray[np.int64] = np.cumsum(groups, axis=0) - groups
        return earlier


def batches_of(subsets: Sequence[Subset], recipe: Recipe) -> BatchSampler:
    """A recipe's batches. Raises MmebError as `BatchSampler` does."""
    return BatchSampler(
        subsets,
        recipe.batch_size,
        recipe.steps,
        seed=recipe.seed,
        batches=recipe.batches,
        interleave=recipe.interleave,
        weights=recipe.weights,
    )
