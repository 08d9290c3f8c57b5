"""Look at many images in several processes, in order, with flat memory."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

_Result = TypeVar("_Result")

_CHUNK = 64  # numbers that a process works on before it reports

_work: Callable[[range], Any]  # of this worker process; inherited at the fork, so that nothing large is sent


def in_processes(
    work: Callable[[range], _Result], count: int, workers: int | None, *, label: str, progress: bool
) -> Iterator[_Result]:
    """`work` of one range of numbers after another, up to `count`, in `workers` forked processes.

    None is one process per core; 0 works in this one.
    """
    ranges = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    with tqdm(total=count, desc=label, unit="image", leave=False, disable=None if progress else True) as bar:
        for numbers, result in zip(ranges, _results(work, ranges, workers), strict=True):
            bar.update(len(numbers))
            yield result


def _results(work: Callable[[range], _Result], ranges: list[range], workers: int | None) -> Iterator[_Result]:
    workers = min(len(os.sched_getaffinity(0)) if workers is None else workers, len(ranges))
    if workers < 1:
        yield from map(work, ranges)
        return
    with multiprocessing.get_context("fork").Pool(workers, _begin, (work,)) as pool:
        yield from pool.imap(_run, ranges)


def _begin(work: Callable[[range], Any]) -> None:
    global _work
    _work = work


def _run(numbers: range) -> Any:
    return _work(numbers)
