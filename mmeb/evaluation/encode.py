"""Items in, unit vectors out: batches of one group, preprocessed in workers while the model runs."""

import gc
import time
from collections.abc import Generator, Hashable, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, fields
from functools import partial
from typing import NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache, item_key
from mmeb.evaluation.forward import Embedded, Prepared, embed_batches, prepare
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.batching import BatchLimit, plan_batches
from mmeb.runtime.memory import CudaMeter, MemoryBudget, MemoryMeter
from mmeb.runtime.processes import Processes, is_sharded, lockstep_share
from mmeb.runtime.signals import StoppedError, StopRequest
from mmeb.runtime.workers import WorkerDiedError, WorkerPool, default_workers

Vectors = NDArray[np.float32]
Indices = NDArray[np.intp]

_SAVED = "What is encoded is saved, and the same command again goes on from there."


@dataclass
class EncodeStatistics:
    """What encoding took: seconds by part (preprocessing summed over workers), items, tokens.

    All but `seconds_total`, `items` and `reused` is summed over the processes that share the work.
    """

    seconds_preprocess: float = 0.0
    seconds_forward: float = 0.0
    seconds_total: float = 0.0
    items: int = 0
    reused: int = 0
    tokens: int = 0
    padding: int = 0
    truncated: int = 0
    batches: int = 0

    def add(self, embedded: Embedded) -> None:
        """Count a batch; of one that did not fit only the time."""
        self.seconds_preprocess += embedded.prepared.seconds
        self.seconds_forward += embedded.seconds
        if embedded.vectors is not None:
            batch = embedded.prepared.batch
            self.tokens += batch.tokens
            self.padding += batch.padding
            self.truncated += batch.truncated
            self.batches += 1

    @classmethod
    def total(cls, parts: Sequence[Self]) -> Self:
        """The sum, field by field."""
        return cls(**{each.name: sum(getattr(part, each.name) for part in parts) for each in fields(cls)})


@dataclass(frozen=True)
class _Workload:
    """Distinct items with their costs (n,) and groups; those that another task has encoded have neither."""

    items: list[Item]
    costs: NDArray[np.int64]
    groups: dict[np.intp, Hashable]

    def group(self, batch: Indices) -> Hashable:
        return self.groups[batch[0]]

    def tokens(self, batch: Indices) -> int:
        """With padding."""
        return int(self.costs[batch].max()) * len(batch)

    def plan(self, indices: Indices, limit: BatchLimit) -> list[Indices]:
        """Batches of these items."""
        batches = plan_batches(self.costs[indices], [self.groups[index] for index in indices], limit)
        return [indices[batch] for batch in batches]

    def halved(self, batch: Indices, limit: BatchLimit) -> BatchLimit:
        """The limit that halves a batch that does not fit. Raises MmebError where it is a single item."""
        if len(batch) == 1:
            prompt = self.items[batch[0]].prompt[:100]
            raise MmebError(f"There is not enough memory on the device for one item: {prompt!r}.")
        return limit.halved(self.costs[batch])


class Encoder:
    """Encodes lists of items with one model; remembers which batch size fits and what is encoded already.

    Its workers live until it is closed. With several `processes` each calls it with the same items, encodes a part of
    them, and gets the vectors of all.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        batch_size: int | str = "auto",
        workers: int | None = None,
        progress: bool = True,
        cache: VectorCache | None = None,
        processes: Processes | None = None,
        stop: StopRequest | None = None,
        meter: MemoryMeter | None = None,
    ) -> None:
        if workers is not None and workers < 0:
            raise MmebError(f"The number of workers must be 0 or more, not {workers}.")
        device = model.device.type
        self.model = model
        self.processes = processes or Processes()
        self._cache = cache
        self._stop = stop or StopRequest()
        self._progress = progress and self.processes.is_main
        self._lockstep = self.processes.size > 1 and is_sharded(model.module)
        limit = BatchLimit.parse(batch_size, device)
        self._budget = MemoryBudget(limit, CudaMeter(model.device) if device == "cuda" else meter)
        workers = default_workers(device, self.processes.local_size) if workers is None else workers
        self._pool: WorkerPool[tuple[int, Sequence[Item]], Prepared] = WorkerPool(partial(prepare, model), workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def __call__(self, items: Sequence[Item], label: str = "items") -> tuple[Vectors, EncodeStatistics]:
        """Encode items, each once though it may occur often.

        Returns float32 unit vectors (n, dim) in the order of `items`, and what it took. Raises MmebError for an image
        that can't be read and where a single item does not fit into memory, StoppedError where a stop is requested;
        what is encoded by then is in the cache.
        """
        started = time.perf_counter()
        keys = [item_key(item) for item in items]
        distinct = dict(zip(keys, items, strict=True))
        try:
            with self.processes.failing_together():
                vectors, statistics = self._encode(list(distinct.values()), list(distinct), label)
        except BaseException:
            if self._cache is not None:
                self._cache.flush()
            raise
        statistics.seconds_total = time.perf_counter() - started
        if len(distinct) == len(items):
            return vectors, statistics
        row = {key: position for position, key in enumerate(distinct)}
        return vectors[[row[key] for key in keys]], statistics

    def _encode(self, items: list[Item], keys: list[bytes], label: str) -> tuple[Vectors, EncodeStatistics]:
        vectors = np.empty((len(items), self.model.dim), dtype=np.float32)
        elsewhere, here = self._load_cached(keys, vectors, label)
        done = elsewhere | here
        present = done & self.processes.is_main  # whose vectors are in this process
        reused = int(done.sum())
        # What this task encoded before a break is planned too: a resumed run forms the batches of an unbroken one.
        new = planned = np.flatnonzero(~elsewhere)
        workload = self._measure(items, new)
        statistics = EncodeStatistics()
        shown = None if self._progress else True
        with tqdm(total=len(items), desc=label, unit="item", leave=False, disable=shown) as bar:
            while not done.all():
                bar.update(int(done.sum()) - bar.n)
                plan = [batch for batch in workload.plan(planned, self._budget.limit) if not done[batch].all()]
                plan = self._unmeasured_first(workload, plan)
                with closing(self._embed(workload, plan, statistics, bar)) as embedded_batches:
                    for batch, embedded in embedded_batches:
                        vectors[batch] = embedded
                        present[batch] = True
                        if self._cache is not None:
                            self._cache.add([keys[index] for index in batch], embedded)
                done |= np.logical_or.reduce(self.processes.gather(present))
                planned = np.flatnonzero(~done)
        self.processes.complete(vectors, present)
        if self._cache is not None and self.processes.is_main:
            self._cache.finish([keys[index] for index in new], vectors[new])
        statistics = EncodeStatistics.total(self.processes.gather(statistics))
        statistics.items, statistics.reused = len(items), reused
        return vectors, statistics

    def _load_cached(
        self, keys: list[bytes], vectors: Vectors, label: str
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Fill in known vectors in the main process; the masks (n,) of what other tasks and this one have encoded."""
        elsewhere, here = np.zeros((2, len(keys)), dtype=np.bool_)
        if self._cache is not None:
            self._cache.begin(label)
            if self.processes.is_main:
                elsewhere, here = self._cache.load(keys, vectors)
        return self.processes.broadcast((elsewhere, here))

    def _measure(self, items: list[Item], new: Indices) -> _Workload:
        """Costs and groups of the new items; each process looks at some of them."""
        rank, size = self.processes.rank, self.processes.size
        measured = [(self.model.cost(items[index]), self.model.group(items[index])) for index in new[rank::size]]
        costs = np.zeros(len(items), dtype=np.int64)
        groups: dict[np.intp, Hashable] = {}
        for other, part in enumerate(self.processes.gather(measured)):
            indices = new[other::size]
            costs[indices] = [cost for cost, _ in part]
            groups.update(zip(indices, (group for _, group in part), strict=True))
        return _Workload(items, costs, groups)

    def _unmeasured_first(self, workload: _Workload, plan: list[Indices]) -> list[Indices]:
        """The first batch of each group whose memory was not measured yet, else the full plan."""
        first = {workload.group(batch): batch for batch in reversed(plan)}
        unmeasured = self._budget.unmeasured(first)
        return [batch for group, batch in first.items() if group in unmeasured] or plan

    def _embed(
        self, workload: _Workload, plan: list[Indices], statistics: EncodeStatistics, bar: "tqdm[NoReturn]"
    ) -> Generator[tuple[Indices, Vectors], None, None]:
        """The batches of a plan that this process encodes, with their vectors.

        Ends early, with a smaller limit for the next plan, where a batch does not fit in one of the processes.
        """
        numbers: Iterable[int]
        numbers = queue = self.processes.share(len(plan))
        if self._lockstep:
            groups = [workload.group(batch) for batch in plan]
            numbers = lockstep_share(groups, self.processes.rank, self.processes.size)
        work = ((number, [workload.items[index] for index in plan[number]]) for number in numbers)
        smaller = None
        try:
            prepared = self._pool.map(work, ordered=self._lockstep)
            for embedded in embed_batches(self.model, prepared, self._budget.meter):
                batch = plan[embedded.prepared.number]
                statistics.add(embedded)
                if embedded.vectors is None:
                    smaller = workload.halved(batch, self._budget.limit)
                    queue.stop()
                    break
                self._budget.record(workload.group(batch), workload.tokens(batch), embedded.peak)
                yield batch, embedded.vectors.numpy()
                bar.update(queue.report(len(batch)) - bar.n)
                if (self._stop.made or queue.is_stopped) and not self._lockstep:
                    break
        except BaseException as error:
            if self._lockstep:
                self.processes.fail_alone()  # the others wait in the middle of the model
            with suppress(MmebError):  # the others are gone
                queue.stop()
            if isinstance(error, WorkerDiedError):
                raise WorkerDiedError(f"{error} {_SAVED}") from None
            raise
        if self._stop.made:
            queue.stop()
            raise StoppedError(f"Stopped on request. {_SAVED}")
        if smaller is not None and torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
        self._budget.update(self.processes, smaller)


def encode(
    model: EmbeddingModel,
    items: Sequence[Item],
    *,
    batch_size: int | str = "auto",
    workers: int | None = None,
    progress: bool = False,
) -> Vectors:
    """Embed items with a model: float32 unit vectors (n, dim), in the order of `items`.

    `workers` processes decode and preprocess while the model runs; 0 does it in this process, None chooses. Of several
    processes under torchrun each embeds what it is given.
    """
    with Encoder(model, batch_size, workers, progress) as encoder:
        return encoder(items)[0]
