"""Several processes share the work: who they are, what they exchange, and how all end where one fails.

`torchrun` and `accelerate launch` start them, on one machine or many. What they exchange is small or lies in main
memory anyway (counts, sentences, vectors for the ranking), so a separate gloo group carries it, on GPUs too.
"""

import itertools
import os
import socket
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.distributed import HashStore, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from mmeb.errors import MmebError

T = TypeVar("T")

_TIMEOUT = timedelta(days=7)  # one may download for hours while the others wait; one that died is noticed at once
_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Processes:
    """All processes that share the work, seen from this one; one alone by default.

    All of them must call the methods that exchange something, in the same order.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, local_rank: int = 0, group: Any = None, store: Store | None = None
    ) -> None:
        """`local_rank` counts the processes of this machine; `store` holds what they count together."""
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self._group = group
        self._store = store or HashStore()
        self._queues = itertools.count()
        self._all_know = False  # of the error that ends them

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def local_size(self) -> int:
        """How many there are on this machine."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if self.size > 1 else 1

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """A block in which an error of one ends all: the others raise it where they next exchange something."""
        try:
            yield
        except Exception as error:
            if not self._all_know and self.size > 1:
                with suppress(MmebError):  # the others are gone
                    self._exchange(None, error)
            raise

    def fail_alone(self) -> None:
        """Let an error end this process at once: the others wait for it elsewhere, and notice that it is gone."""
        self._all_know = True

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in each of them."""
        return [value] if self.size == 1 else self._exchange(value, None)

    def broadcast(self, value: T) -> T:
        """The main process's value, in each of them."""
        return self.gather(value if self.is_main else None)[0]  # type: ignore[return-value]

    def barrier(self) -> None:
        """Wait until all are here."""
        self.gather(None)

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the main process, which alone does it."""
        with self.failing_together():
            return self.broadcast(work() if self.is_main else None)  # type: ignore[return-value]

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """The first process of each machine goes through the block before the others: its downloads are there then."""
        if self.local_rank != 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()

    def require_same(self, value: object, what: str) -> None:
        """Raises MmebError where the processes do not hold equal values."""
        for rank, other in enumerate(values := self.gather(value)):
            if other != values[0]:
                self._all_know = True
                raise MmebError(f"The processes do not agree on {what}: {values[0]} in process 0, {other} in {rank}.")

    def complete(self, vectors: NDArray[np.float32], present: NDArray[np.bool_]) -> None:
        """Fill in the rows of `vectors` (n, dim) that other processes hold; `present` (n,) says which are here."""
        if self.size == 1:
            return
        for rank, rows in enumerate(self.gather(np.flatnonzero(present))):
            part = torch.from_numpy(vectors[rows])
            with _peers():
                dist.broadcast(part, src=rank, group=self._group)
            if rank != self.rank:
                vectors[rows] = part.numpy()

    def share(self, count: int) -> "WorkQueue":
        """Distribute the numbers below `count`."""
        shares = [range(rank, count, self.size) for rank in range(self.size)]
        return WorkQueue(shares, self.rank, PrefixStore(str(next(self._queues)), self._store))

    def _exchange(self, value: Any, error: Exception | None) -> list[Any]:
        """All values. Where another process sends an error instead, that is raised."""
        if error is not None and not isinstance(error, MmebError):
            error = MmebError(f"Process {self.rank} failed with {type(error).__name__}: {error}")
        messages: list[tuple[Any, Exception | None]] = [(None, None)] * self.size
        with _peers():
            dist.all_gather_object(messages, (value, error), group=self._group)
        errors = [each for _, each in messages if each is not None]
        self._all_know = bool(errors)
        if errors and error is None:
            raise errors[0]
        return [each for each, _ in messages]


class WorkQueue:
    """Each number for one process: every process takes its share, then what is left of the others'.

    How far each share was taken is counted in the process group's store.
    """

    def __init__(self, shares: Sequence[Sequence[int]], rank: int, store: Store) -> None:
        self._shares = shares
        self._rank = rank
        self._store = store

    def __iter__(self) -> Iterator[int]:
        for owner in range(self._rank, self._rank + len(self._shares)):
            share = self._shares[owner % len(self._shares)]
            while (taken := self._add(f"taken/{owner % len(self._shares)}", 1)) <= len(share):
                yield share[taken - 1]

    def report(self, count: int) -> int:
        """Say that so many more items are done; returns how many all processes have done."""
        return self._add("done", count)

    def stop(self) -> None:
        """Ask all processes to stop."""
        self._add("stop", 1)

    @property
    def is_stopped(self) -> bool:
        return self._add("stop", 0) > 0

    def _add(self, key: str, amount: int) -> int:
        with _peers():
            return int(self._store.add(key, amount))


def lockstep_share(groups: Sequence[Hashable], rank: int, size: int) -> list[int]:
    """The batches of one process, for a model that all run at the same time: as many for each, of the same groups.

    `groups` are those of all batches, by position. Where a group has too few, its last batch is repeated.
    """
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    return [
        positions[min(start + rank, len(positions) - 1)]
        for positions in members.values()
        for start in range(0, len(positions), size)
    ]


def is_sharded(module: nn.Module) -> bool:
    """Whether a model's weights lie in pieces in all processes (FSDP, ZeRO-3), which then can only run it together."""
    # By what their weights have: importing PyTorch's class for the first takes a second.
    return any(hasattr(weight, name) for weight in module.parameters() for name in ("device_mesh", "ds_id"))


def launched() -> Processes:
    """This process as the launcher's environment describes it, before there is a group: it can exchange nothing."""
    if not all(name in os.environ for name in _LAUNCHER_VARIABLES):
        return Processes()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return Processes(rank, size, int(os.environ.get("LOCAL_RANK", rank)))


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that share the work; one alone where nothing launched several.

    Makes the process group that a launcher's environment describes, and ends it afterwards; one that is there already
    is used and left as it is.
    """
    makes_group = launched().size > 1 and not dist.is_initialized()
    if makes_group:
        with _peers():
            dist.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            yield Processes()
            return
        with _peers():
            group = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        try:
            rank, store = dist.get_rank(), _shared_store(group)
            yield Processes(rank, dist.get_world_size(), int(os.environ.get("LOCAL_RANK", rank)), group, store)
        finally:
            dist.destroy_process_group(group)
    finally:
        if makes_group:
            dist.destroy_process_group()


def _shared_store(group: Any) -> Store:
    """A store that the main process serves to all."""
    host = os.environ.get("MASTER_ADDR") or socket.gethostname()
    with _peers():
        served = TCPStore(host, 0, is_master=True, wait_for_workers=False) if dist.get_rank() == 0 else None
        address: list[Any] = [host, served.port if served else None]
        dist.broadcast_object_list(address, src=0, group=group)
        return served or TCPStore(address[0], address[1], is_master=False)


def own_device(processes: Processes, device: str | None, device_map: str | None = None) -> str | None:
    """The device of this process: of several on a machine, each takes the GPU of its own number.

    Raises MmebError where `device` or `device_map` would give one GPU to all of them.
    """
    if processes.local_size == 1:
        return device
    if device_map is not None or (device or "").startswith("cuda:"):
        raise MmebError("Several processes take one GPU each: leave --device and --device-map out.")
    if device == "cuda" or (device is None and torch.cuda.is_available()):
        return f"cuda:{processes.local_rank}"
    return device


@contextmanager
def main_process_speaks(processes: Processes) -> Iterator[None]:
    """Keep what the other processes print, and an error that all share, from appearing as often as there are processes.

    A bug keeps its traceback in every process.
    """
    if processes.is_main:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        try:
            yield
        except MmebError as error:
            raise SystemExit(error.exit_code) from error


@contextmanager
def _peers() -> Iterator[None]:
    """Say in plain words that another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise MmebError(
            "Another process of this run ended, or can't be reached; its own message says why. The same command again "
            f"goes on from what is saved, with any number of processes. ({str(error).splitlines()[0][:200]})"
        ) from error
