"""What fits into memory: a model's weights before they are loaded, and how large a batch may be."""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import psutil
import torch

from mmeb.errors import MmebError
from mmeb.runtime.batching import BatchLimit
from mmeb.runtime.processes import Processes

_CGROUP = Path("/sys/fs/cgroup")
_USED = 0.8  # of the free memory: it is fragmented, and other processes come and go
_START = 4  # the first batches are this many times smaller than the largest


def check_memory(name: str, parameters: int, dtype: torch.dtype, device: torch.device | str) -> str:
    """One line on what a model's weights need and what is free.

    `parameters` is their number. `device` is "auto" for all GPUs and the CPU together. Raises MmebError where the
    weights alone do not fit into what is free.
    """
    needed = parameters * dtype.itemsize
    free = available(device)
    kind = str(dtype).removeprefix("torch.")
    line = (
        f"{name}: {parameters / 1e6:,.1f} M parameters, {_size(needed)} in {kind}; {_size(free)} are free on {device}"
    )
    if needed > free:
        smaller = "" if dtype.itemsize < 4 else "--dtype bfloat16, "
        raise MmebError(
            f"There is too little memory for {name}: its weights take {_size(needed)} in {kind}, and {device} has "
            f"{_size(free)} free; take {smaller}another --device, or a smaller model."
        )
    return line


def available(device: torch.device | str) -> int:
    """The free memory of a device in bytes; "auto" is all GPUs and the CPU together."""
    if device == "auto":
        gpus = sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return gpus + _available_cpu()
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    return _available_cpu()


def _available_cpu() -> int:
    """What the machine has free, within the limit of the container that this process runs in."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


class MemoryMeter(Protocol):
    """Measures a device's memory, in bytes."""

    def start(self) -> None:
        """Begin to measure the peak."""

    def peak(self) -> int:
        """The maximum since `start`, over what was taken then."""

    def available(self) -> int:
        """What a batch could take."""


class CudaMeter:
    """The memory of one GPU, by PyTorch's own allocator."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before = 0

    def start(self) -> None:
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def available(self) -> int:
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return torch.cuda.mem_get_info(self._device)[0] + kept


class MemoryBudget:
    """The limit for the next batches; the same in all processes.

    With a `meter` it starts low: once a batch of a group is measured, it grows to what fits, at most to `limit`. A
    batch that does not fit halves it, and then it grows no more.
    """

    def __init__(self, limit: BatchLimit, meter: MemoryMeter | None = None) -> None:
        self.limit = limit
        self.meter = meter if limit.tokens is not None else None
        self._max_tokens = limit.tokens or 0
        self._bytes_per_token: dict[Hashable, float] = {}
        if self.meter is not None:
            self.limit = replace(limit, tokens=max(1, self._max_tokens // _START))

    def unmeasured(self, groups: Iterable[Hashable]) -> set[Hashable]:
        """The groups of which a batch must be measured first."""
        return set(groups) - self._bytes_per_token.keys() if self.meter is not None else set()

    def record(self, group: Hashable, tokens: int, peak: int) -> None:
        """Note that a batch of so many tokens, padding counted, took `peak` bytes."""
        self._bytes_per_token[group] = max(self._bytes_per_token.get(group, 0), peak / max(1, tokens))

    def update(self, processes: Processes, smaller: BatchLimit | None) -> None:
        """Set the next limit, in all processes; `smaller` is that of a process where a batch did not fit."""
        refused = [limit for limit in processes.gather(smaller) if limit is not None]
        if refused:
            self.limit = min(refused, key=lambda limit: (limit.items, limit.tokens or 0))
            self.meter = None
        if self.meter is None:
            return
        measured, free = zip(*processes.gather((dict(self._bytes_per_token), self.meter.available())), strict=True)
        for group, value in (pair for each in measured for pair in each.items()):
            self._bytes_per_token[group] = max(self._bytes_per_token.get(group, 0), value)
        fits = int(_USED * min(free) / max(1.0, *self._bytes_per_token.values()))
        self.limit = replace(self.limit, tokens=max(self.limit.tokens or 0, min(self._max_tokens, fits)))
