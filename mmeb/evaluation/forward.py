"""Batches are preprocessed and go through the model, without the device waiting for the processor."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmeb.data.item import Item
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.runtime.memory import MemoryMeter


@dataclass(frozen=True)
class Prepared:
    """A preprocessed batch, its number, and the seconds that it took."""

    number: int
    batch: Batch
    seconds: float


def prepare(model: EmbeddingModel, work: tuple[int, Sequence[Item]]) -> Prepared:
    """Preprocess a batch, given by its number and its items; done in a worker process."""
    number, items = work
    started = time.perf_counter()
    batch = model.preprocess(items)
    return Prepared(number, batch, time.perf_counter() - started)


@dataclass(frozen=True)
class Embedded:
    """A batch with its float32 vectors (n, dim) on the CPU, None where it did not fit into memory.

    `seconds` is how long it kept this process, `peak` the bytes that it took of the device, if there was a meter.
    """

    prepared: Prepared
    vectors: Tensor | None
    seconds: float
    peak: int
    copied: torch.cuda.Event | None = None  # when the vectors have arrived

    def arrived(self) -> "Embedded":
        """Wait for the vectors."""
        started = time.perf_counter()
        if self.copied is not None:
            self.copied.synchronize()
        return replace(self, seconds=self.seconds + time.perf_counter() - started)


def embed_batches(
    model: EmbeddingModel, batches: Iterable[Prepared], meter: MemoryMeter | None = None
) -> Iterator[Embedded]:
    """Embed batches in their order. One that does not fit into the device's memory is the last.

    On a GPU a batch's vectors are fetched once the next batch was launched.
    """
    copies = torch.cuda.Stream(model.device) if model.device.type == "cuda" else None  # type: ignore[no-untyped-call]
    previous: Embedded | None = None
    for prepared in batches:
        embedded = _launch(model, prepared, copies, meter)
        if previous is not None:
            yield previous.arrived()
        previous = embedded
        if copies is None or embedded.vectors is None:
            yield embedded
            previous = None
        if embedded.vectors is None:
            return
    if previous is not None:
        yield previous.arrived()


def _launch(
    model: EmbeddingModel, prepared: Prepared, copies: torch.cuda.Stream | None, meter: MemoryMeter | None
) -> Embedded:
    started = time.perf_counter()
    if meter is not None:
        meter.start()
    vectors, copied = None, None
    try:
        with torch.inference_mode():
            if copies is None:
                vectors = model.embed(prepared.batch.to(model.device)).float().cpu()
            else:
                vectors, copied = _launch_on_gpu(model, prepared.batch, copies)
    except torch.OutOfMemoryError:
        pass
    peak = meter.peak() if meter is not None else 0  # of what was reserved: the device may still be computing
    return Embedded(prepared, vectors, time.perf_counter() - started, peak, copied)


def _launch_on_gpu(model: EmbeddingModel, batch: Batch, copies: torch.cuda.Stream) -> tuple[Tensor, torch.cuda.Event]:
    """Copy a batch in while the one before is computed, and its vectors out when they are ready."""
    computation = torch.cuda.current_stream(model.device)
    pinned = batch.pin_memory()
    with torch.cuda.stream(copies):
        batch = pinned.to(model.device)
    computation.wait_stream(copies)
    for tensor in batch.inputs.values():
        tensor.record_stream(computation)  # its memory is not reused before the computation has ended
    vectors = model.embed(batch).float().to("cpu", non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record(computation)
    return vectors, copied
