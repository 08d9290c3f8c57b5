"""A function of many numbers in several processes, with a progress bar: how the checks look at images."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from tqdm import tqdm

from mmeb.runtime.workers import WorkerPool

R = TypeVar("R")

_CHUNK = 64  # numbers that a process works on before it reports


def for_each(
    function: Callable[[int], R], count: int, workers: int | None, *, label: str, progress: bool
) -> Iterator[R]:
    """`function` of 0, 1, … up to `count`, in order; None workers are one per core, 0 is this process."""
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    with (
        tqdm(total=count, desc=label, unit="image", leave=False, disable=None if progress else True) as bar,
        WorkerPool[range, list[R]](lambda numbers: [function(number) for number in numbers], workers, ahead=2) as pool,
    ):
        for results in pool.map(chunks):
            bar.update(len(results))
            yield from results
