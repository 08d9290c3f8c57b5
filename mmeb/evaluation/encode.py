"""Items in, unit vectors out: batches of one kind, prepared in workers while the model runs."""

import gc
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache, item_key
from mmeb.evaluation.forward import Embedded, Preparation, Prepared, embed_batches
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.batching import BatchLimit, plan_batches
from mmeb.runtime.budget import Budget, CudaMeter, Meter
from mmeb.runtime.processes import Processes, is_shared_out
from mmeb.runtime.signals import StoppedError, StopRequest
from mmeb.runtime.workers import WorkerDiedError, WorkerPool, default_workers

_Vectors = NDArray[np.float32]

_SAVED = "What is encoded is saved, the same command again goes on from there."
_STOPPED = "Stopped on request: what is encoded is saved, and the same command again goes on from there."


@dataclass
class EncodeStatistics:
    """What encoding took: seconds by part (preprocessing summed over workers), items, tokens.

    All but `seconds_total` is summed over the processes that share the work.
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
        """Count a batch in; one that did not fit has taken time alone."""
        self.seconds_preprocess += embedded.prepared.seconds
        self.seconds_forward += embedded.seconds
        if embedded.vectors is None:
            return
        batch = embedded.prepared.batch
        self.tokens += batch.tokens
        self.padding += batch.padding
        self.truncated += batch.truncated
        self.batches += 1


@dataclass
class Encoder:
    """Encodes many lists of items with one model, remembering what batch size fits and what was encoded already.

    Its workers live until it is closed. With several `processes` each calls it with the same items, encodes its share,
    and gets the vectors of all.
    """

    model: EmbeddingModel
    batch_size: int | str = "auto"
    workers: int | None = None
    progress: bool = True
    cache: VectorCache | None = None
    processes: Processes = field(default_factory=Processes)
    stop: StopRequest = field(default_factory=StopRequest)
    meter: Meter | None = None
    _budget: Budget = field(init=False)
    _in_rounds: bool = field(init=False)
    _pool: WorkerPool[tuple[int, Sequence[Item]], Prepared] = field(init=False)

    def __post_init__(self) -> None:
        device = self.model.device.type
        most = BatchLimit.parse(self.batch_size, device)
        self._budget = Budget(most, CudaMeter(self.model.device) if device == "cuda" else self.meter)
        if self.workers is not None and self.workers < 0:
            raise MmebError(f"The number of workers is to be 0 or more, not {self.workers}.")
        default = default_workers(device, self.processes.local_size)
        self._in_rounds = self.processes.size > 1 and is_shared_out(self.model.module)
        workers = default if self.workers is None else self.workers
        self._pool = WorkerPool(Preparation(self.model), workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.close()

    def __call__(self, items: Sequence[Item], label: str = "items") -> tuple[_Vectors, EncodeStatistics]:
        """Encode items, each once though it may occur often.

        Returns float32 unit vectors (n, dim) in the order of `items`, and what it took. Raises MmebError for an image
        that can't be read, where a single item does not fit into memory, and StoppedError where `stop` is made; what
        is encoded by then is in the cache.
        """
        started = time.perf_counter()
        keys = [item_key(item) for item in items]
        by_key = dict(zip(keys, items, strict=True))
        vectors = np.empty((len(by_key), self.model.dim), dtype=np.float32)
        statistics = EncodeStatistics()
        if self.cache is not None:
            self.cache.begin(label)
        try:
            reused = self._encode_unique(list(by_key.values()), list(by_key), vectors, statistics, label)
        except BaseException:
            if self.cache is not None:
                self.cache.flush()
            raise
        statistics = _total(self.processes.gather(statistics))
        statistics.items, statistics.reused = len(by_key), reused
        statistics.seconds_total = time.perf_counter() - started
        if len(by_key) == len(items):
            return vectors, statistics
        row = {key: position for position, key in enumerate(by_key)}
        return vectors[[row[key] for key in keys]], statistics

    def _encode_unique(
        self, items: list[Item], keys: list[bytes], vectors: _Vectors, statistics: EncodeStatistics, label: str
    ) -> int:
        """Fill `vectors`; returns how many were in the cache."""
        cache, processes = self.cache, self.processes
        elsewhere, here = np.zeros((2, len(items)), dtype=np.bool_)
        if cache is not None:
            elsewhere, here = processes.on_first(lambda: cache.load(keys, vectors))
        known = elsewhere | here
        held = known & (processes.rank == 0)  # the rows whose vectors are in this process
        new = np.flatnonzero(~elsewhere)
        costs, groups = self._sizes(items, new)

        def keep(indices: NDArray[np.intp], embedded: _Vectors) -> None:
            vectors[indices] = embedded
            held[indices] = True
            if cache is not None:
                cache.add([keys[index] for index in indices], embedded)

        done = known.copy()
        # What this task encoded before a break is planned too: a resumed run forms the batches of an unbroken one.
        planned = new
        shown = self.progress and processes.rank == 0
        with tqdm(total=len(items), desc=label, unit="item", leave=False, disable=None if shown else True) as bar:
            while not done.all():
                bar.update(int(done.sum()) - bar.n)
                chosen = plan_batches(costs[planned], [groups[index] for index in planned], self._budget.limit)
                plan = [
                    _Planned(batch, groups[batch[0]], costs[batch], items)
                    for batch in (planned[batch] for batch in chosen)
                    if not done[batch].all()
                ]
                if unmeasured := self._budget.unmeasured(batch.group for batch in plan):
                    first = {batch.group: batch for batch in reversed(plan)}
                    plan = [batch for group, batch in first.items() if group in unmeasured]
                self._run(plan, keep, statistics, bar)
                done |= np.logical_or.reduce(processes.gather(held))
                planned = np.flatnonzero(~done)
        processes.complete(vectors, held)
        if cache is not None:
            processes.on_first(lambda: cache.finish([keys[index] for index in new], vectors[new]))
        return int(known.sum())

    def _sizes(self, items: list[Item], chosen: NDArray[np.intp]) -> tuple[NDArray[np.int64], dict[np.intp, Hashable]]:
        """Costs (n,) and groups by position, of the chosen items alone; each process looks at some of them."""
        rank, size = self.processes.rank, self.processes.size
        mine = self.processes.together(
            lambda: [(self.model.cost(items[index]), self.model.group(items[index])) for index in chosen[rank::size]]
        )
        costs = np.zeros(len(items), dtype=np.int64)
        groups: dict[np.intp, Hashable] = {}
        for other, part in enumerate(self.processes.gather(mine)):
            positions = chosen[other::size]
            costs[positions] = [cost for cost, _ in part]
            groups.update(zip(positions, (group for _, group in part), strict=True))
        return costs, groups

    def _run(
        self,
        plan: list["_Planned"],
        keep: Callable[[NDArray[np.intp], _Vectors], None],
        statistics: EncodeStatistics,
        bar: "tqdm[NoReturn]",
    ) -> None:
        """Encode the batches of a plan that fall to this process, and hand their indices and vectors to `keep`.

        Ends early, with a smaller limit for the next plan, where a batch does not fit in one of the processes.
        """
        groups = [batch.group for batch in plan] if self._in_rounds else None
        deal = self.processes.deal([batch.tokens for batch in plan], groups)
        work = ((number, plan[number].chosen()) for number in deal)
        smaller, error = None, None
        try:
            prepared = self._pool.map(work, ordered=self._in_rounds)
            for embedded in embed_batches(self.model, prepared, self._budget.meter):
                batch = plan[embedded.prepared.number]
                statistics.add(embedded)
                if embedded.vectors is None:
                    smaller = batch.smaller(self._budget.limit)
                    deal.stop()
                    break
                self._budget.measured(batch.group, batch.tokens, embedded.peak)
                keep(batch.indices, embedded.vectors)
                bar.update(deal.report(len(batch.indices)) - bar.n)
                if (self.stop.made or deal.stopped) and not self._in_rounds:
                    break
            if self.stop.made:
                raise StoppedError(_STOPPED)
        except Exception as raised:
            if isinstance(raised, WorkerDiedError):
                raised = WorkerDiedError(f"{raised} {_SAVED}")
            if self._in_rounds:
                raise  # the others wait for this process in the middle of the model: it must not wait for them
            error = raised
            with suppress(MmebError):  # the others may be gone
                deal.stop()
        self.processes.agree(error)
        if smaller is not None and torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()
        self._budget.settle(self.processes, smaller)


@dataclass(frozen=True)
class _Planned:
    """A batch of one group: where its items stand among all `items`, and their costs (n,)."""

    indices: NDArray[np.intp]
    group: Hashable
    costs: NDArray[np.int64]
    items: Sequence[Item]

    @property
    def tokens(self) -> int:
        """With padding."""
        return int(self.costs.max()) * len(self.indices)

    def chosen(self) -> list[Item]:
        return [self.items[index] for index in self.indices]

    def smaller(self, limit: BatchLimit) -> BatchLimit:
        """The limit that halves this batch, which does not fit. Raises MmebError where it is a single item."""
        if len(self.indices) == 1:
            raise MmebError(
                f"There is not enough memory on the device for one item: {self.chosen()[0].prompt[:100]!r}."
            )
        return limit.halved(self.costs)


def encode(
    model: EmbeddingModel,
    items: Sequence[Item],
    *,
    batch_size: int | str = "auto",
    workers: int | None = None,
    progress: bool = False,
) -> _Vectors:
    """Embed items with a model: float32 unit vectors (n, dim), in the order of `items`.

    `workers` processes decode and preprocess while the model runs; 0 does it in this process, None chooses. Of several
    processes under torchrun each embeds what it is given.
    """
    with Encoder(model, batch_size, workers, progress) as encoder:
        return encoder(items)[0]


def _total(parts: list[EncodeStatistics]) -> EncodeStatistics:
    """The sum over processes, field by field."""
    return EncodeStatistics(
        **{each.name: sum(getattr(part, each.name) for part in parts) for each in fields(EncodeStatistics)}
    )
