"""Which pairs make a batch."""

from collections.abc import Iterator, Sequence
from random import Random

from torch.utils.data import Sampler

from mmeb.errors import MmebError


class HomogeneousSampler(Sampler[list[int]]):
    """Batches of one subset each, drawn by chance in proportion to its pairs; all of it follows from the seed.

    `sizes` are the subsets' numbers of pairs, which are numbered one after another. Within a subset every pair is seen
    once before any is seen again. Raises MmebError for a subset that is smaller than a batch.
    """

    def __init__(self, sizes: Sequence[int], batch_size: int, steps: int, seed: int) -> None:
        if (smallest := min(sizes)) < batch_size:
            raise MmebError(f"A subset has {smallest} pairs, which is less than a batch of {batch_size}.")
        self._sizes = list(sizes)
        self._starts = [sum(sizes[:position]) for position in range(len(sizes))]
        self._batch_size = batch_size
        self._steps = steps
        self._seed = seed

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        rng = Random(self._seed)
        left: list[list[int]] = [[] for _ in self._sizes]
        for _ in range(self._steps):
            (subset,) = rng.choices(range(len(self._sizes)), self._sizes)
            if len(left[subset]) < self._batch_size:
                start = self._starts[subset]
                left[subset] = rng.sample(range(start, start + self._sizes[subset]), self._sizes[subset])
            yield left[subset][: self._batch_size]
            left[subset] = left[subset][self._batch_size :]
