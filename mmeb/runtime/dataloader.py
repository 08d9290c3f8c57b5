"""Batches that are prepared in worker processes while the model runs."""

import ctypes
import multiprocessing
import os
import re
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.runtime.signals import leave_to_parent

_NEWS = 1.0  # seconds that the system takes at most to tell of a process that died

_M_MMAP_THRESHOLD = -3  # its number in glibc's malloc.h
_GIVEN_BACK = 4 << 20  # bytes: above an image's size, below a batch's

_Work = tuple[int, list[Item]]  # a batch's number and its items


@dataclass(frozen=True)
class Prepared:
    """A preprocessed batch, its number, and the seconds that it took."""

    number: int
    batch: Batch
    seconds: float

    def pin_memory(self) -> "Prepared":
        return Prepared(self.number, self.batch.pin_memory(), self.seconds)


class Pipeline:
    """Preprocesses with a model's own `preprocess`, in workers that are forked once and kept.

    `in_order` keeps the batches in order, though a later one may be ready first.
    """

    def __init__(self, model: EmbeddingModel, workers: int, *, in_order: bool = False) -> None:
        self._in_order = in_order
        self._model = model
        self._workers = workers
        self._queue = _Queue()
        self._loader: DataLoader[Prepared | MmebError] | None = None

    def __call__(self, work: Iterable[_Work], most: int) -> Iterator[Prepared]:
        """The batches of `work`, as they are ready; it is asked for the next only as workers become free.

        `most` is about how many there will be: no more workers are made than that. Raises MmebError for an image that
        can't be read, and where a worker lacks shared memory; to be used within `plain_worker_errors`.
        """
        workers = min(self._workers, most)
        if self._loader is None or self._loader.num_workers < workers:
            self.close()
            self._loader = self._make_loader(workers)
        self._queue.work = work
        for prepared in self._loader:
            if isinstance(prepared, MmebError):
                raise prepared
            yield prepared

    def close(self) -> None:
        """End the workers. Left to itself, the interpreter would wait for them at its own end."""
        if self._loader is not None and (running := self._loader._iterator) is not None:
            running._shutdown_workers()  # type: ignore[attr-defined]
        self._loader = None

    def _make_loader(self, workers: int) -> DataLoader[Prepared | MmebError]:
        return DataLoader(
            _Preprocessing(self._model),
            sampler=self._queue,
            batch_size=None,
            num_workers=workers,
            # Each worker has one batch in hand; few workers have one more waiting.
            prefetch_factor=(2 if workers < 3 else 1) if workers else None,
            persistent_workers=workers > 0,
            # Forked workers share the model's memory; none of them touches its weights or the device.
            multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
            worker_init_fn=begin_work,
            pin_memory=self._model.device.type == "cuda",
            in_order=self._in_order,
        )


def begin_work(number: int) -> None:
    """What a worker does first: it leaves signals to its parent, and gives memory back that it no longer needs.

    glibc raises the size above which it does so to that of the largest block that was ever freed, a batch's, and by
    then keeps up to a gigabyte between batches. Other libraries have no such setting.
    """
    leave_to_parent(number)
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _GIVEN_BACK)


def default_workers(device_type: str, processes: int = 1) -> int:
    """One process per core, less the ones that run the model; at most 16. `processes` share this machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // processes
    return max(1, min(16, share - 1 if device_type == "cpu" else share))


class _Queue(Sampler[_Work]):
    """What the workers are given next; the loader asks for it batch by batch."""

    def __init__(self) -> None:
        self.work: Iterable[_Work] = ()

    def __iter__(self) -> Iterator[_Work]:
        return iter(self.work)


class _Preprocessing(Dataset[Prepared | MmebError]):
    """Work in, a batch out; a user's mistake comes back as a value, so that its sentence stays plain."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    def __getitem__(self, work: _Work) -> Prepared | MmebError:
        number, items = work
        started = time.perf_counter()
        try:
            batch = self._model.preprocess(items)
        except MmebError as error:
            return error
        seconds = time.perf_counter() - started
        if get_worker_info() is not None and (refused := share(batch)) is not None:
            return refused
        return Prepared(number, batch, seconds)


def share(batch: Batch) -> MmebError | None:
    """Move a batch to shared memory here, where a failure can be told: the loader's own thread would hang on it."""
    try:
        for tensor in batch.inputs.values():
            tensor.share_memory_()  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        return _no_shared_memory(str(error))
    return None


def _no_shared_memory(error: str) -> MmebError:
    reason = re.search(r":\s*([^:<>]+ \(\d+\))", error)
    return MmebError(
        f"A worker can't write a batch to shared memory ({reason[1] if reason else error.splitlines()[0]}): give "
        "/dev/shm more room (docker run --shm-size), or take a smaller --batch-size, fewer --workers or --workers 0."
    )


@contextmanager
def plain_worker_errors(
    onward: str = "What is encoded is saved, the same command again goes on from there.",
) -> Iterator[None]:
    """Say in plain words that a worker is dead, and `onward`: what is kept.

    The loader tells it wherever the main thread is at that moment, or stumbles over a batch that was not handed over.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
        if not isinstance(error, RuntimeError):
            with suppress(RuntimeError):
                time.sleep(_NEWS)  # of the worker's death, which the loader would tell in the midst of what follows
            if "multiprocessing" not in traceback.extract_tb(error.__traceback__)[-1].filename:
                raise  # it is about something else
        told = re.search(r"DataLoader worker \(.*\) (?:is killed by signal: ([\w ]+)|exited)", str(error))
        if told is None and isinstance(error, RuntimeError):
            raise
        if told is None:
            with suppress(RuntimeError):
                time.sleep(1)  # until the loader tells it too: here, not while the workers are being ended
        if told is not None and told[1] == "Bus error":
            raise _no_shared_memory("the system ended it with a bus error") from error
        raise MmebError(
            "A worker process that prepares batches was killed: often memory ran out, and fewer --workers take less. "
            f"{onward}"
        ) from error
