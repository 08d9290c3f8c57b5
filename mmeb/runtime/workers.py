"""A pool of worker processes, forked once: work in, results out, tensors in shared memory."""

import atexit
import ctypes
import io
import itertools
import multiprocessing
import os
import pickle
import signal
import socket
import struct
import tempfile
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from mmeb.errors import MmebError

W = TypeVar("W")
R = TypeVar("R")

_ALIGNMENT = 64  # bytes, of an array in shared memory
_SMALL = 4096  # bytes: smaller arrays travel with the rest of a message

_M_MMAP_THRESHOLD = -3  # its number in glibc's malloc.h
_RETURNED = 4 << 20  # bytes: above an image's size, below a batch's


class WorkerDiedError(MmebError):
    """A worker process was killed or ended by itself; the message says how."""


class SharedMemoryError(MmebError):
    """There is no room for what a worker and this process exchange."""


class WorkerPool(Generic[W, R]):
    """`function` over many pieces of work in up to `workers` processes; with 0 workers in this process.

    Workers are forked when there is work for them and kept until `close`. They inherit `function`, which is never
    pickled, and leave SIGTERM and SIGINT to this process; when it dies, they end. Each has up to `ahead` pieces of work
    at a time, by default one, or two where there are few workers. Tensors and arrays in results lie in shared memory
    (without a name in /dev/shm) that is free as soon as the last of a result's tensors is.
    """

    def __init__(self, function: Callable[[W], R], workers: int, *, ahead: int | None = None) -> None:
        self._function = function
        self._max_workers = workers
        self._ahead = (2 if workers < 3 else 1) if ahead is None else ahead
        self._workers: list[_Worker] = []
        self._numbers = itertools.count()
        self._end = weakref.finalize(self, _end, self._workers, os.getpid())
        atexit.register(self._end)  # before multiprocessing's own, which would wait for the workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def map(self, work: Iterable[W], *, ordered: bool = True) -> Iterator[R]:
        """The results, in the order of `work`, or as they are ready.

        Asks `work` for the next piece when a worker can take it. A second call ends the first. An error of `function`
        is raised as it is. Raises WorkerDiedError and SharedMemoryError.
        """
        if self._max_workers == 0:
            yield from map(self._function, work)
            return
        upcoming = iter(work)
        sent: dict[int, None] = {}  # the numbers of work whose result was not yet yielded, in order
        outcomes: dict[int, _Outcome] = {}  # those of them that have arrived
        self._send(upcoming, sent)
        while sent:
            while (number := next(iter(sent if ordered else outcomes), -1)) not in outcomes:
                outcomes |= self._receive(sent, seconds=None)
            outcomes |= self._receive(sent, seconds=0)
            outcome = outcomes.pop(number)
            del sent[number]
            if outcome.error is not None:
                raise outcome.error
            self._send(upcoming, sent)
            yield outcome.result

    def close(self) -> None:
        """End the workers, whatever they do."""
        _end(self._workers, os.getpid())

    def _send(self, work: Iterator[W], sent: dict[int, None]) -> None:
        """Give work to the workers until they have enough, and note its numbers in `sent`."""
        for piece in itertools.islice(work, self._max_workers * self._ahead - len(sent)):
            worker = min(self._workers, key=lambda each: each.load, default=None)
            if worker is None or (worker.load and len(self._workers) < self._max_workers):
                worker = _Worker.start(self._function, [each.channel for each in self._workers])
                self._workers.append(worker)
            number = next(self._numbers)
            try:
                _send(worker.channel, (number, piece))
            except ConnectionError:
                raise self._death(worker) from None
            worker.load += 1
            sent[number] = None

    def _receive(self, sent: dict[int, None], seconds: float | None) -> dict[int, "_Outcome"]:
        """What the workers have ready, by its number; of an earlier `map`'s work nothing. Waits at most `seconds`."""
        ready = wait([worker.channel for worker in self._workers], seconds)
        outcomes = {}
        for worker in self._workers:
            if worker.channel in ready:
                try:
                    number, outcomes[number] = _receive(worker.channel)
                except (EOFError, ConnectionError):
                    raise self._death(worker) from None
                worker.load -= 1
        return {number: outcome for number, outcome in outcomes.items() if number in sent}

    def _death(self, worker: "_Worker") -> MmebError:
        worker.process.join()
        code = worker.process.exitcode or 0
        self.close()
        if code == -signal.SIGBUS:
            return _no_room("the system ended it with a bus error")
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(
            f"A worker process of this run {how}: often memory ran out, and fewer --workers take less."
        )


def default_workers(device_type: str, processes: int = 1) -> int:
    """One process per core, less the ones that run the model; at most 16. `processes` share this machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // processes
    return max(1, min(16, share - 1 if device_type == "cpu" else share))


def _no_room(reason: str) -> SharedMemoryError:
    return SharedMemoryError(
        f"A worker process can't put its result in shared memory ({reason}): take a smaller --batch-size, fewer "
        "--workers, or --workers 0."
    )


@dataclass
class _Worker:
    process: BaseProcess
    channel: socket.socket
    load: int = 0  # pieces of work sent, and not received

    @classmethod
    def start(cls, function: Callable[[Any], Any], siblings: list[socket.socket]) -> Self:
        # Forked workers share the model's memory.
        here, there = socket.socketpair()
        process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(function, there, [here, *siblings]), daemon=True
        )
        process.start()
        there.close()
        return cls(process, here)


def _end(workers: list[_Worker], owner: int) -> None:
    """Kill the workers; they hold nothing that outlives them."""
    if os.getpid() != owner:  # a forked process that inherited the pool
        return
    for worker in workers:
        worker.channel.close()
        worker.process.kill()
    for worker in workers:
        worker.process.join()
    workers.clear()


@dataclass(frozen=True)
class _Outcome:
    result: Any = None
    error: Exception | None = None


def _serve(function: Callable[[Any], Any], channel: socket.socket, others: list[socket.socket]) -> None:
    """A worker's life: one piece of work after another, until the parent closes the channel or dies."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for other in others:  # held open here, a dead parent's would never end
        other.close()
    torch.set_num_threads(1)
    _return_memory()
    with suppress(EOFError, ConnectionError):
        while True:
            number, piece = _receive(channel)
            try:
                outcome = _Outcome(function(piece))
            except Exception as error:
                outcome = _Outcome(error=_portable(error))
            try:
                _send(channel, (number, outcome))
            except ConnectionError:
                raise
            except Exception as error:  # no room for the result, or it can't be pickled
                _send(channel, (number, _Outcome(error=_portable(error))))


def _return_memory() -> None:
    """Give memory back to the system that is no longer needed.

    glibc raises the size above which it does so to that of the largest block that was ever freed, a batch's, and by
    then keeps up to a gigabyte between batches. Other libraries have no such setting.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _RETURNED)


def _portable(error: Exception) -> Exception:
    """The error as it can be sent: a bug has its traceback in a note; what can't be pickled becomes a RuntimeError."""
    if not isinstance(error, MmebError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


# A message is one anonymous file in memory: how many blocks, their sizes, then the blocks, the first the pickled
# message and the others its arrays. Only the file's descriptor goes through the socket, so that nobody waits to send.


def _send(channel: socket.socket, message: object) -> None:
    arrays: list[memoryview] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=lambda buffer: _keep(buffer.raw(), arrays)).dump(message)
    blocks = [stream.getbuffer(), *arrays]
    try:
        with _memory_file() as file:
            file.write(struct.pack(f"Q{len(blocks)}Q", len(blocks), *(block.nbytes for block in blocks)))
            for block in blocks:
                file.write(bytes(-file.tell() % _ALIGNMENT))
                file.write(block)
            file.flush()
            socket.send_fds(channel, [b"\0"], [file.fileno()])
    except ConnectionError:
        raise
    except OSError as error:
        raise _no_room(error.strerror or type(error).__name__) from None


def _receive(channel: socket.socket) -> Any:
    """Raises EOFError where the other side is closed."""
    data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not data:
        raise EOFError
    with open(descriptors[0], "rb") as file:
        # Mapped by name: a mapping that keeps a descriptor would hold a file open for each result.
        name, size = f"/dev/fd/{file.fileno()}", os.fstat(file.fileno()).st_size
        mapped: Any = torch.from_file(name, shared=True, size=size, dtype=torch.uint8).numpy()
    memory = memoryview(mapped)
    (count,) = struct.unpack("Q", memory[:8])
    start, blocks = 8 * (count + 1), []
    for size in struct.unpack(f"{count}Q", memory[8:start]):
        start += -start % _ALIGNMENT
        blocks.append(memory[start : start + size])
        start += size
    return pickle.loads(blocks[0], buffers=blocks[1:])


def _memory_file() -> Any:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("mmeb"), "w+b")
    return tempfile.TemporaryFile()


def _keep(buffer: memoryview, arrays: list[memoryview]) -> bool:
    """Whether a buffer stays in the pickled message; else it is added to `arrays`."""
    if buffer.nbytes < _SMALL:
        return True
    arrays.append(buffer)
    return False


def _reduce_tensor(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor as the bytes of its storage, which numpy pickles without a copy."""
    stored = torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage())
    return _tensor, (stored.numpy(), tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())


def _tensor(stored: Any, dtype: torch.dtype, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
    return torch.from_numpy(stored).view(dtype).as_strided(size, stride, offset)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:
        return _reduce_tensor(value) if type(value) is Tensor else NotImplemented
