"""Steps that are planned and prepared in worker processes while the model runs."""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, tee
from typing import TypeVar

from torch.utils.data import DataLoader, Dataset, get_worker_info

from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.dataloader import begin_work, share
from mmeb.training.recipe import Recipe
from mmeb.training.sampler import BatchSampler, Draw
from mmeb.training.step import StepBatch, StepPlan, StepPlans, SubBatch, Work, prepare

_AHEAD = 4  # sub-batches, and steps' plans, that each worker has ready

T = TypeVar("T")


class StepLoader:
    """This process's part of each step, in order: `StepBatch`es, each to be gone through before the next is asked for.

    A step comes sub-batch by sub-batch, prepared by `workers` processes, with one more that plans; with 0 all of that
    is done here. What waits to be run is some sub-batches and not some steps: a step of a thousand images is
    gigabytes. Raises MmebError for a mistake of the user's other than an unreadable image.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        subsets: Sequence[Sequence[TrainPair]],
        recipe: Recipe,
        draws: BatchSampler | Sequence[Draw],
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        self._model = model
        self._plans = StepPlans(model, subsets, recipe, rank=rank, world=world)
        self._draws = draws
        self._workers = workers

    def __len__(self) -> int:
        return len(self._draws)

    def __iter__(self) -> Iterator[StepBatch]:
        plans, ahead = tee(self._load(self._plans, self._draws, min(1, self._workers)))
        prepared = self._received(self._load(_SubBatches(self._model), _work(ahead), self._workers))
        for plan in plans:
            if isinstance(plan, MmebError):
                raise plan
            yield StepBatch(plan, (list(islice(prepared, len(subs))) for subs in plan.rounds), self._again)

    def _again(self, rounds: Sequence[list[Work]]) -> Iterator[list[SubBatch]]:
        """Rounds of a plan, prepared once more by workers of their own."""
        work = [each for subs in rounds for each in subs]
        prepared = self._received(self._load(_SubBatches(self._model), work, min(self._workers, len(work))))
        for subs in rounds:
            yield list(islice(prepared, len(subs)))

    def _load(self, dataset: Dataset[T], keys: Iterable[object], workers: int) -> Iterator[T]:
        return iter(
            DataLoader(
                dataset,
                sampler=keys,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=_AHEAD if workers else None,
                # Forked workers share the model's memory; none of them touches its weights or the device.
                multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
                worker_init_fn=begin_work,
            )
        )

    def _received(self, prepared: Iterator[SubBatch | MmebError]) -> Iterator[SubBatch]:
        for sub in prepared:
            if isinstance(sub, MmebError):
                raise sub
            # A step's sub-batches are kept until its end: in shared memory each tensor would hold a file open.
            inputs = {name: tensor.clone() for name, tensor in sub.batch.inputs.items()} if self._workers else None
            yield sub if inputs is None else replace(sub, batch=replace(sub.batch, inputs=inputs))


def _work(plans: Iterable[StepPlan | MmebError]) -> Iterator[Work]:
    """All sub-batches, until a plan that could not be made."""
    for plan in plans:
        if isinstance(plan, MmebError):
            return
        for subs in plan.rounds:
            yield from subs


class _SubBatches(Dataset[SubBatch | MmebError]):
    """Work in, a sub-batch out; a user's mistake comes back as a value, so that its sentence stays plain."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    def __getitem__(self, work: Work) -> SubBatch | MmebError:
        try:
            sub = prepare(self._model, work)
        except MmebError as error:
            return error
        refused = share(sub.batch) if get_worker_info() is not None else None
        return sub if refused is None else refused
