"""Many images looked at in several processes, in order."""

import os
from collections.abc import Callable, Iterator
from typing import TypeVar

from tqdm import tqdm

from mmeb.runtime.workers import WorkerPool

R = TypeVar("R")

_CHUNK = 64  # numbers that a process works on before it reports


def in_chunks(
    function: Callable[[range], R], count: int, workers: int | None, *, label: str, progress: bool
) -> Iterator[R]:
    """`function` of one range of numbers after another, up to `count`, in `workers` processes.

    None is one process per core; 0 works in this one.
    """
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    with (
        tqdm(total=count, desc=label, unit="image", leave=False, disable=None if progress else True) as bar,
        WorkerPool(function, workers, ahead=2) as pool,
    ):
        for numbers, result in zip(chunks, pool.map(chunks), strict=True):
            bar.update(len(numbers))
            yield result
