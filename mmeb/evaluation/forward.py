"""Prepared batches through the model, and their vectors back, without the device waiting for either."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from mmeb.data.item import Item
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.runtime.budget import Meter


@dataclass(frozen=True)
class Prepared:
    """A preprocessed batch, its number, and the seconds that it took."""

    number: int
    batch: Batch
    seconds: float


@dataclass(frozen=True)
class Preparation:
    """The work of the processes that prepare batches: a batch's number and its items in, a prepared batch out."""

    model: EmbeddingModel

    def __call__(self, work: tuple[int, Sequence[Item]]) -> Prepared:
        number, items = work
        started = time.perf_counter()
        batch = self.model.preprocess(items)
        return Prepared(number, batch, time.perf_counter() - started)


@dataclass(frozen=True)
class Embedded:
    """A batch with its float32 vectors (n, dim), None where it did not fit.

    `seconds` it held this process up; `peak` bytes of the device it took, if a meter was there.
    """

    prepared: Prepared
    vectors: NDArray[np.float32] | None
    seconds: float
    peak: int = 0


def embed_batches(model: EmbeddingModel, batches: Iterable[Prepared], meter: Meter | None = None) -> Iterator[Embedded]:
    """Embed batches in their order. One that does not fit into the device's memory is the last.

    On a GPU a batch's vectors are fetched once the next batch is under way.
    """
    copies = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None  # type: ignore[no-untyped-call]
    waiting: _Launched | None = None
    for prepared in batches:
        started = time.perf_counter()
        if meter is not None:
            meter.start()
        launched = _launch(model, prepared, copies)
        peak = meter.peak() if meter is not None else 0  # of what was reserved: the device may still be at work
        seconds = time.perf_counter() - started
        if waiting is not None:
            yield waiting.fetch()
        waiting = None
        if launched is None:
            yield Embedded(prepared, None, seconds)
            return
        launched = replace(launched, peak=peak)
        if copies is not None:
            waiting = launched
        else:
            yield launched.fetch()
    if waiting is not None:
        yield waiting.fetch()


@dataclass(frozen=True)
class _Launched:
    prepared: Prepared
    vectors: torch.Tensor  # on their way to the CPU
    arrived: torch.cuda.Event | None
    seconds: float
    peak: int = 0

    def fetch(self) -> Embedded:
        started = time.perf_counter()
        if self.arrived is not None:
            self.arrived.synchronize()
        vectors = self.vectors.numpy()
        return Embedded(self.prepared, vectors, self.seconds + time.perf_counter() - started, self.peak)


def _launch(model: EmbeddingModel, prepared: Prepared, copies: torch.cuda.Stream | None) -> _Launched | None:
    """Start a forward pass; None where there is not enough memory for it."""
    started = time.perf_counter()
    try:
        with torch.inference_mode():
            if copies is None:
                vectors, arrived = model.embed(prepared.batch.to(model.device)).float().cpu(), None
            else:
                vectors, arrived = _launch_on_gpu(model, prepared, copies)
    except torch.OutOfMemoryError:
        return None
    return _Launched(prepared, vectors, arrived, time.perf_counter() - started)


def _launch_on_gpu(
    model: EmbeddingModel, prepared: Prepared, copies: torch.cuda.Stream
) -> tuple[torch.Tensor, torch.cuda.Event]:
    """Copy a batch in beside the computation that is still running, and its vectors out behind its own."""
    computation = torch.cuda.current_stream(model.device)
    with torch.cuda.stream(copies):
        batch = prepared.batch.pin_memory().to(model.device)
    computation.wait_stream(copies)
    for tensor in batch.inputs.values():
        tensor.record_stream(computation)  # its memory is not given away before the computation is through
    vectors = model.embed(batch).float().to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record(computation)
    return vectors, arrived
