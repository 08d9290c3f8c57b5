"""Several processes score one model: who they are, and what they tell one another.

`torchrun` and `accelerate launch` start them, on one machine or many. What they exchange is small or lies in main
memory anyway (counts, sentences, vectors that are to be ranked), so a gloo group of our own carries it, on GPUs too.
"""

import itertools
import os
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store, _get_default_store

from mmeb.errors import MmebError

T = TypeVar("T")

_PATIENCE = timedelta(days=7)  # one may download for hours while the others wait; a dead one is noticed at once
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what a launcher sets
_STOP = 1 << 40  # more than all items


@dataclass(frozen=True)
class Processes:
    """All processes that share the work, seen from this one. Every method is to be called in all of them."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those on this machine
    _group: Any = None
    _name: str = ""  # of this group in the store, where earlier ones left their counters
    _deals: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def local_size(self) -> int:
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) if self.size > 1 else 1

    def gather(self, value: T) -> list[T]:
        """The values of all processes, by rank, in each of them."""
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        with _peers():
            dist.all_gather_object(values, value, group=self._group)
        return values

    def agree(self, error: Exception | None) -> None:
        """Go on where no process has an error; else all raise, each its own or that of the first that has one."""
        shown = error
        if error is not None and not isinstance(error, MmebError):
            shown = MmebError(f"Process {self.rank} failed with {type(error).__name__}: {error}")
        try:
            errors = [each for each in self.gather(shown) if each is not None]
        finally:
            if error is not None:
                raise error
        if errors:
            raise errors[0]

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns here; where it fails in one process, all raise."""
        try:
            value, error = work(), None
        except Exception as raised:
            error = raised
        self.agree(error)
        return value

    def on_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in process 0, which alone does it."""
        return self.gather(self.together(lambda: work() if self.rank == 0 else None))[0]  # type: ignore[return-value]

    def once_per_node(self, work: Callable[[], T]) -> T:
        """`work` in the first process of each machine, then in the others: what it downloads is there by then."""
        value = self.together(lambda: work() if self.local_rank == 0 else None)
        return self.together(lambda: work() if self.local_rank != 0 else value)  # type: ignore[return-value]

    def same(self, value: T, what: str) -> None:
        """Raises MmebError where the processes do not hold equal values."""
        for rank, other in enumerate(values := self.gather(value)):
            if other != values[0]:
                raise MmebError(f"The processes do not agree on {what}: {values[0]} in process 0, {other} in {rank}.")

    def complete(self, vectors: NDArray[np.float32], mine: NDArray[np.bool_]) -> None:
        """Fill in, in place, the rows of `vectors` (n, dim) that other processes hold; `mine` (n,) are those here."""
        if self.size == 1:
            return
        for rank, rows in enumerate(self.gather(np.flatnonzero(mine))):
            part = torch.from_numpy(vectors[rows])
            with _peers():
                dist.broadcast(part, src=rank, group=self._group)
            if rank != self.rank:
                vectors[rows] = part.numpy()

    def deal(self, costs: Sequence[int], groups: Sequence[Hashable] | None = None) -> "Deal":
        """Hand batches of these costs out; with `groups`, in rounds of one group each that all processes go through.

        That is for a model whose layers are shared out: all have to run the same layers at the same time. Where
        a round has too few batches, one of them is done more than once.
        """
        if self.size == 1:
            return Deal([list(range(len(costs)))], 0, None)
        counters = PrefixStore(f"{self._name}/{next(self._deals)}", _get_default_store())
        shares = _shares(costs, self.size) if groups is None else _rounds(groups, self.size)
        return Deal(shares, self.rank, counters, takes_over=groups is None)


class Deal:
    """Gives each batch to one process: to each its share by cost, and the share of the slow to those who are done.

    The counters lie in the process group's store: of each share, how many batches were asked for (`asked`), and how
    many others took from its end (`taken`).
    """

    def __init__(self, shares: list[list[int]], rank: int, store: Store | None, *, takes_over: bool = True) -> None:
        self._takes_over = takes_over
        self._shares = shares
        self._rank = rank
        self._store = store
        self._counts: dict[str, int] = {}
        self.stopped = False

    @property
    def most(self) -> int:
        """How many batches this process will do where all are equally fast."""
        return len(self._shares[self._rank])

    def __iter__(self) -> Iterator[int]:
        """The batches for this process to do, its costliest first."""
        owners = [(self._rank + step) % len(self._shares) for step in range(len(self._shares))]
        for owner in owners if self._takes_over else owners[:1]:
            share = self._shares[owner]
            given = 0
            while self._add(f"asked/{owner}") <= len(share):
                if owner == self._rank:
                    yield share[given]
                    given += 1
                else:
                    yield share[-self._add(f"taken/{owner}")]

    def report(self, items: int) -> int:
        """Say that a batch with so many items is done; returns how many items all processes have done."""
        total = self._add("done", items)
        self.stopped = total >= _STOP
        return total % _STOP

    def stop(self) -> None:
        """Ask all processes to end after the batch in hand: they learn it from their next report."""
        self._add("done", _STOP)

    def _add(self, name: str, amount: int = 1) -> int:
        if self._store is not None:
            with _peers():
                return int(self._store.add(name, amount))
        self._counts[name] = self._counts.get(name, 0) + amount
        return self._counts[name]


def _shares(costs: Sequence[int], size: int) -> list[list[int]]:
    """Positions dealt to `size` processes: costliest first, each to the one that has least."""
    loads = np.zeros(size)
    shares: list[list[int]] = [[] for _ in range(size)]
    for position in np.argsort(-np.array(costs, dtype=np.int64), kind="stable").tolist():
        least = int(loads.argmin())
        shares[least].append(position)
        loads[least] += costs[position]
    return shares


def _rounds(groups: Sequence[Hashable], size: int) -> list[list[int]]:
    """Positions dealt to `size` processes, as many to each; those in the same place are of one group."""
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    shares: list[list[int]] = [[] for _ in range(size)]
    for positions in members.values():
        for start in range(0, len(positions), size):
            for number, share in enumerate(shares):
                share.append(positions[min(start + number, len(positions) - 1)])
    return shares


def is_shared_out(module: nn.Module) -> bool:
    """Whether a model's weights lie in pieces in all processes (FSDP, ZeRO-3), which then can only run it together."""
    # By what their weights have: importing PyTorch's class for the first takes a second.
    return any(hasattr(weight, name) for weight in module.parameters() for name in ("device_mesh", "ds_id"))


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that share the work; one alone where nothing launched several.

    Makes the process group that a launcher's environment describes, and ends it afterwards; one that is there already
    is used and left as it is.
    """
    launched = all(name in os.environ for name in _LAUNCHED) and int(os.environ["WORLD_SIZE"]) > 1
    makes_group = launched and not dist.is_initialized()
    if makes_group:
        with _peers():
            dist.init_process_group("gloo", timeout=_PATIENCE)
    try:
        if not dist.is_initialized() or dist.get_world_size() == 1:
            yield Processes()
            return
        rank, size = dist.get_rank(), dist.get_world_size()
        with _peers():
            group = dist.new_group(backend="gloo", timeout=_PATIENCE)
        processes = Processes(rank, size, int(os.environ.get("LOCAL_RANK", rank)), group)
        try:
            yield replace(processes, _name=processes.gather(uuid.uuid4().hex)[0])
        finally:
            dist.destroy_process_group(group)
    finally:
        if makes_group:
            dist.destroy_process_group()


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
def first_alone_speaks(processes: Processes) -> Iterator[None]:
    """Keep what the other processes print, and an error that all share, from appearing as often as there are processes.

    What is no MmebError keeps its traceback in every process.
    """
    if processes.rank == 0:
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
            "Another process of this run ended, or can't be reached; what it says tells why. The same command again "
            f"goes on from what is saved, with any number of processes. ({str(error).splitlines()[0][:200]})"
        ) from error
