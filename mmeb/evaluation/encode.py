"""Items in, unit vectors out: batches of one kind, prepared in workers while the model runs."""

import gc
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.batching import BatchLimit, plan_batches
from mmeb.evaluation.cache import VectorCache, item_key
from mmeb.models.base import Batch, EmbeddingModel

_PREFETCH = 2  # batches that each worker prepares ahead


@dataclass
class EncodeStatistics:
    """What encoding took: seconds by part (preprocessing summed over workers), items, tokens."""

    seconds_preprocess: float = 0.0
    seconds_forward: float = 0.0
    seconds_total: float = 0.0
    items: int = 0
    reused: int = 0
    tokens: int = 0
    padding: int = 0
    truncated: int = 0
    batches: int = 0


@dataclass
class Encoder:
    """Encodes many lists of items with one model, remembering what batch size fits and what was encoded already."""

    model: EmbeddingModel
    batch_size: int | str = "auto"
    workers: int | None = None
    progress: bool = True
    cache: VectorCache | None = None
    _limit: BatchLimit = field(init=False)

    def __post_init__(self) -> None:
        self._limit = BatchLimit.parse(self.batch_size, self.model.device.type)
        if self.workers is None:
            self.workers = default_workers(self.model.device.type)
        elif self.workers < 0:
            raise MmebError(f"The number of workers is to be 0 or more, not {self.workers}.")

    def __call__(self, items: Sequence[Item], label: str = "items") -> tuple[NDArray[np.float32], EncodeStatistics]:
        """Encode items, each once though it may occur often.

        Returns float32 unit vectors (n, dim) in the order of `items`, and what it took. Raises MmebError for an image
        that can't be read, and where a single item does not fit into memory.
        """
        started = time.perf_counter()
        keys = [item_key(item) for item in items]
        by_key = dict(zip(keys, items, strict=True))
        vectors = np.empty((len(by_key), self.model.dim), dtype=np.float32)
        statistics = EncodeStatistics(items=len(by_key))
        if self.cache is not None:
            self.cache.begin(label)
        self._encode_unique(list(by_key.values()), list(by_key), vectors, statistics, label)
        if self.cache is not None:
            self.cache.flush()
        statistics.seconds_total = time.perf_counter() - started
        if len(by_key) == len(items):
            return vectors, statistics
        row = {key: position for position, key in enumerate(by_key)}
        return vectors[[row[key] for key in keys]], statistics

    def _encode_unique(
        self,
        items: list[Item],
        keys: list[bytes],
        vectors: NDArray[np.float32],
        statistics: EncodeStatistics,
        label: str,
    ) -> None:
        none = np.zeros(len(items), dtype=np.bool_)
        elsewhere, here = self.cache.load(keys, vectors) if self.cache is not None else (none, none)
        statistics.reused = int((elsewhere | here).sum())
        # Planned over what this task encoded before a break, too: a resumed run forms the batches of an unbroken one.
        planned = np.flatnonzero(~elsewhere)
        costs = np.array([self.model.cost(items[index]) for index in planned], dtype=np.int64)
        groups = [self.model.group(items[index]) for index in planned]
        done = elsewhere | here
        hidden = None if self.progress else True  # None: where no person watches a terminal
        with tqdm(total=len(items), desc=label, unit="item", leave=False, disable=hidden) as bar:
            bar.update(int(done.sum()))
            while not done.all():
                batches = [planned[batch] for batch in plan_batches(costs, groups, self._limit)]
                plan = [batch for batch in batches if not done[batch].all()]
                for indices, batch in self._prepared(items, plan, statistics):
                    try:
                        embedded = self._forward(batch, statistics)
                    except torch.OutOfMemoryError:
                        if len(indices) == 1:
                            name = items[indices[0]].prompt[:100]
                            raise MmebError(
                                f"There is not enough memory on the device for one item: {name!r}."
                            ) from None
                        self._limit = self._limit.halved(costs[np.searchsorted(planned, indices)])
                        break
                    vectors[indices] = embedded
                    if self.cache is not None:
                        self.cache.add([keys[index] for index in indices], embedded)
                    bar.update(int((~done[indices]).sum()))
                    done[indices] = True
                if torch.cuda.is_available():
                    gc.collect()
                    torch.cuda.empty_cache()

    def _prepared(
        self, items: list[Item], plan: list[NDArray[np.intp]], statistics: EncodeStatistics
    ) -> Iterator[tuple[NDArray[np.intp], Batch]]:
        """The planned batches, preprocessed in worker processes, in order."""
        workers = min(self.workers or 0, len(plan))
        loader = DataLoader(
            _PlannedBatches(self.model, items, plan),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=_PREFETCH if workers else None,
            # Forked workers share the model's memory; none of them touches its weights or the device.
            multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
            pin_memory=self.model.device.type == "cuda",
        )
        for indices, prepared in zip(plan, loader, strict=True):
            if isinstance(prepared, MmebError):
                raise prepared
            statistics.seconds_preprocess += prepared.seconds
            yield indices, prepared.batch

    def _forward(self, batch: Batch, statistics: EncodeStatistics) -> NDArray[np.float32]:
        started = time.perf_counter()
        with torch.inference_mode():
            vectors = self.model.embed(batch.to(self.model.device)).float().cpu().numpy()
        statistics.seconds_forward += time.perf_counter() - started
        statistics.tokens += batch.tokens
        statistics.padding += batch.padding
        statistics.truncated += batch.truncated
        statistics.batches += 1
        return vectors


def encode(
    model: EmbeddingModel,
    items: Sequence[Item],
    *,
    batch_size: int | str = "auto",
    workers: int | None = None,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Embed items with a model: float32 unit vectors (n, dim), in the order of `items`.

    `workers` processes decode and preprocess while the model runs; 0 does it in this process, None chooses.
    """
    return Encoder(model, batch_size, workers, progress)(items)[0]


def default_workers(device_type: str) -> int:
    """One process per core, less the one that runs the model; at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores - 1)) if device_type == "cpu" else max(1, min(16, cores))


@dataclass(frozen=True)
class _Prepared:
    batch: Batch
    seconds: float

    def pin_memory(self) -> "_Prepared":
        return _Prepared(self.batch.pin_memory(), self.seconds)


class _PlannedBatches(Dataset[_Prepared | MmebError]):
    """Batch by batch, preprocessed; a user's mistake comes back as a value, so that its sentence stays plain."""

    def __init__(self, model: EmbeddingModel, items: list[Item], plan: list[NDArray[np.intp]]) -> None:
        self._model = model
        self._items = items
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, position: int) -> _Prepared | MmebError:
        started = time.perf_counter()
        try:
            batch = self._model.preprocess([self._items[index] for index in self._plan[position]])
        except MmebError as error:
            return error
        return _Prepared(batch, time.perf_counter() - started)
