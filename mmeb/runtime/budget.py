"""How large batches may be: what the user says, or what a device's memory turns out to hold."""

from collections.abc import Hashable, Iterable
from dataclasses import replace
from typing import Protocol

import torch

from mmeb.runtime.batching import BatchLimit
from mmeb.runtime.processes import Processes

_USED = 0.8  # of the free memory: it is kept in pieces, and other processes come and go
_START = 4  # the first batches take this part of the most


class Meter(Protocol):
    """Measures a device's memory, in bytes."""

    def start(self) -> None:
        """From here on the peak counts."""

    def peak(self) -> int:
        """The most that was taken since `start`, over what was taken then."""

    def available(self) -> int:
        """What a batch could take."""


class CudaMeter:
    """Of one GPU, by PyTorch's own allocator."""

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


class Budget:
    """The limit that the next batches are planned with; the same in all processes.

    With a `meter` it starts low: once a batch of a group is measured, it grows to what fits, at most to `most`. A
    batch that does not fit halves it, and then it grows no more.
    """

    def __init__(self, most: BatchLimit, meter: Meter | None = None) -> None:
        self.limit = most
        self.meter = meter if most.tokens is not None else None
        self._most_tokens = most.tokens or 0
        self._bytes_per_token: dict[Hashable, float] = {}
        if self.meter is not None:
            self.limit = replace(most, tokens=max(1, self._most_tokens // _START))

    def unmeasured(self, groups: Iterable[Hashable]) -> set[Hashable]:
        """Those of which a batch is to be measured first."""
        return set(groups) - self._bytes_per_token.keys() if self.meter is not None else set()

    def measured(self, group: Hashable, tokens: int, peak: int) -> None:
        """Take note that a batch of so many tokens, padding counted, took `peak` bytes."""
        self._bytes_per_token[group] = max(self._bytes_per_token.get(group, 0), peak / max(1, tokens))

    def settle(self, processes: Processes, smaller: BatchLimit | None) -> None:
        """Agree on the next limit; `smaller` is that of a process where a batch did not fit."""
        refused = [limit for limit in processes.gather(smaller) if limit is not None]
        if refused:
            self.limit = min(refused, key=lambda limit: (limit.items, limit.tokens or 0))
            self.meter = None
        if self.meter is None:
            return
        for others in processes.gather(self._bytes_per_token):
            for group, value in others.items():
                self._bytes_per_token[group] = max(self._bytes_per_token.get(group, 0), value)
        available = min(processes.gather(self.meter.available()))
        fits = int(_USED * available / max(1.0, *self._bytes_per_token.values()))
        self.limit = replace(self.limit, tokens=max(self.limit.tokens or 0, min(self._most_tokens, fits)))
