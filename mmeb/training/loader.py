"""Steps that worker processes plan and prepare while the model runs."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, tee
from typing import Protocol

from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.workers import WorkerPool
from mmeb.training.batch import Prepared, Rows, StepBatch, StepPlan, Work, plan_step, prepare
from mmeb.training.recipe import Recipe

_AHEAD = 4  # micro-batches, and steps' plans, that each worker has ready


class Batches(Protocol):
    """The pairs of each step."""

    def __len__(self) -> int: ...
    def __getitem__(self, step: int, /) -> Rows: ...


class StepLoader:
    """This process's part of each step, in order, from step `start` on.

    A step comes micro-batch by micro-batch, prepared by `workers` processes, with one more that plans; with 0 all of
    that is done here. What waits is some micro-batches and not some steps: a step of a thousand images is gigabytes.
    The passes of a step must be gone through before the next step is asked for. Raises MmebError for a mistake of the
    user's other than an unreadable image.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        subsets: Sequence[Sequence[TrainPair]],
        recipe: Recipe,
        batches: Batches,
        *,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        def plan(step: int) -> StepPlan | MmebError:
            # As a value: an error that is raised ends the plans before the steps that are ready are taken.
            try:
                return plan_step(model, subsets, recipe, step, batches[step], rank=rank, world=world)
            except MmebError as error:
                return error

        def prepare_work(work: Work) -> Prepared:
            return prepare(model, work)

        self._steps = range(start, len(batches))
        self._planner = WorkerPool(plan, min(1, workers), ahead=_AHEAD)
        self._first = WorkerPool(prepare_work, workers, ahead=_AHEAD)
        self._again = WorkerPool(prepare_work, workers, ahead=_AHEAD)  # for what is not kept between the passes

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[StepBatch]:
        plans, upcoming = tee(self._planner.map(self._steps))
        prepared = self._first.map(_work(upcoming))
        try:
            for plan in plans:
                if isinstance(plan, MmebError):
                    raise plan
                count = sum(map(len, plan.passes))
                yield StepBatch(plan, islice(prepared, count), self._again.map)
        finally:
            self.close()

    def close(self) -> None:
        """End the workers."""
        for pool in (self._planner, self._first, self._again):
            pool.close()


def _work(plans: Iterable[StepPlan | MmebError]) -> Iterator[Work]:
    """All micro-batches, until a plan that could not be made."""
    for plan in plans:
        if isinstance(plan, MmebError):
            return
        for micro_batches in plan.passes:
            yield from map(plan.work, micro_batches)
