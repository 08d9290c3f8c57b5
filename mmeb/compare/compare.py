"""Two results, task by task: how far apart they are, and whether the difference is real."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb.compare.sides import Side, data_of, mismatch, settings_of
from mmeb.errors import MmebError
from mmeb.results import statistics
from mmeb.results.averages import percent
from mmeb.results.schema import TaskResult
from mmeb.results.store import differing
from mmeb.tasks import GROUP_TITLES, GROUPS, PRIMARY_METRIC, task_order

COMMON = "common"
"""The group of all tasks that both sides have and that can be compared."""


class Method(StrEnum):
    """How a task was tested."""

    PAIRED = "paired"  # McNemar's exact test on per-query ranks
    UNPAIRED = "unpaired"  # Fisher's exact test on the counts: one side has no ranks
    NONE = "not comparable"


@dataclass(frozen=True)
class TaskDifference:
    """One task: scores in percent; `difference`, second minus first, and its 95% `interval` in points.

    `p` is corrected for all tasks of the comparison (Holm). `gained` and `lost` queries are known where both sides
    have ranks. `problem` says why a task can't be compared; it then has neither p nor interval.
    """

    task: str
    first: float
    second: float
    difference: float
    method: Method
    p: float | None = None
    interval: tuple[float, float] | None = None
    gained: int | None = None
    lost: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class GroupDifference:
    """A mean over tasks, in percent and points.

    There are no numbers where one side lacks a member; `members` are the shared ones, `done` of `total`.
    """

    group: str
    title: str
    done: int
    total: int
    members: tuple[str, ...]
    first: float | None = None
    second: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Comparison:
    """`second` against `first`; `only_first` and `only_second` are the tasks that the other side lacks.

    `settings` lists what differs between the two of all that affects scores, as (name, first, second).
    """

    first: str
    second: str
    tasks: tuple[TaskDifference, ...]
    groups: tuple[GroupDifference, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    settings: tuple[tuple[str, Any, Any], ...]
    notes: tuple[str, ...]

    def mean(self) -> GroupDifference:
        """The overall mean, or that of the tasks that can be compared where they are not all 36."""
        by_group = {group.group: group for group in self.groups}
        return by_group.get(COMMON, by_group["overall"])


def compare(first: Side, second: Side, *, bootstrap: bool = True) -> Comparison:
    """Compare `second` with `first`; without `bootstrap`, faster, there are no intervals by it.

    Raises MmebError for demo against real results, and for no common task.
    """
    if first.result.is_demo != second.result.is_demo:
        demo, real = (first, second) if first.result.is_demo else (second, first)
        raise MmebError(f"{demo.label} was scored on demo data and {real.label} was not: they can't be compared.")
    common = sorted(first.result.tasks.keys() & second.result.tasks.keys(), key=lambda name: (task_order(name), name))
    if not common:
        raise MmebError(f"{first.label} and {second.label} have no task in common.")
    tasks = _corrected([_compare_task(name, first, second) for name in common])
    groups = _groups(tasks)
    if bootstrap:
        tasks, groups = _with_intervals(tasks, groups, first, second)
    settings = settings_of(first), settings_of(second)
    return Comparison(
        first=first.label,
        second=second.label,
        tasks=tuple(tasks),
        groups=tuple(groups),
        only_first=tuple(name for name in first.result.tasks if name not in second.result.tasks),
        only_second=tuple(name for name in second.result.tasks if name not in first.result.tasks),
        settings=tuple(differing(*settings)) if all(settings) else (),
        notes=tuple(_notes(tasks, first, second)),
    )


def _compare_task(name: str, first: Side, second: Side) -> TaskDifference:
    a, b = first.result.tasks[name], second.result.tasks[name]
    scores = percent(a.metrics[PRIMARY_METRIC]), percent(b.metrics[PRIMARY_METRIC])
    difference = round(scores[1] - scores[0], 9)
    if problem := mismatch(first, second, name):
        return TaskDifference(name, *scores, difference, Method.NONE, problem=problem)
    if name in first.ranks and name in second.ranks:
        change = _change(first, second, name)
        gained, lost = int((change > 0).sum()), int((change < 0).sum())
        p = statistics.mcnemar(gained, lost)
        return TaskDifference(name, *scores, difference, Method.PAIRED, p, gained=gained, lost=lost)
    counts = (*_hits(a), *_hits(b))
    interval = _points(statistics.unpaired_interval(*counts))
    return TaskDifference(name, *scores, difference, Method.UNPAIRED, statistics.unpaired(*counts), interval)


def _corrected(tasks: Sequence[TaskDifference]) -> list[TaskDifference]:
    """The tasks with their p corrected for the number of tests."""
    corrected = iter(statistics.holm([task.p for task in tasks if task.p is not None]))
    return [task if task.p is None else replace(task, p=float(next(corrected))) for task in tasks]


def _groups(tasks: Sequence[TaskDifference]) -> list[GroupDifference]:
    """The benchmark's groups, and the tasks that can be compared where those are not all 36."""
    by_name = {task.task: task for task in tasks}
    comparable = [task.task for task in tasks if task.method is not Method.NONE]
    members = {key: (GROUP_TITLES[key], [task.name for task in of_group]) for key, of_group in GROUPS.items()}
    if comparable and not set(members["overall"][1]) <= set(comparable):
        members[COMMON] = f"Mean of {len(comparable)} shared", comparable
    groups = []
    for key, (title, names) in members.items():
        shared = [by_name[name] for name in names if name in by_name]
        group = GroupDifference(key, title, len(shared), len(names), tuple(task.task for task in shared))
        if len(shared) == len(names):
            first = math.fsum(task.first for task in shared) / len(shared)
            second = math.fsum(task.second for task in shared) / len(shared)
            group = replace(group, first=first, second=second, difference=second - first)
        groups.append(group)
    return groups


def _with_intervals(
    tasks: Sequence[TaskDifference], groups: Sequence[GroupDifference], first: Side, second: Side
) -> tuple[list[TaskDifference], list[GroupDifference]]:
    """Add bootstrap intervals: to paired tasks, and to the groups all of whose members can be compared."""
    comparable = {task.task: task for task in tasks if task.method is not Method.NONE}
    paired = [(task.task,) for task in tasks if task.method is Method.PAIRED]
    means = [
        group.members for group in groups if group.difference is not None and comparable.keys() >= {*group.members}
    ]
    intervals = _intervals([*paired, *means], comparable, first, second)
    return (
        [replace(task, interval=intervals.get((task.task,))) if (task.task,) in paired else task for task in tasks],
        [
            group if group.difference is None else replace(group, interval=intervals.get(group.members))
            for group in groups
        ],
    )


def _intervals(
    rows: Sequence[tuple[str, ...]], tasks: Mapping[str, TaskDifference], first: Side, second: Side
) -> dict[tuple[str, ...], tuple[float, float]]:
    """Of the mean difference of each row of tasks, in points; queries are resampled within their task.

    Empty where a task has only one query.
    """
    samples: list[NDArray[np.float64]] = []
    columns: list[NDArray[np.float64]] = []
    for name in dict.fromkeys(name for row in rows for name in row):
        weight = np.array([1 / len(row) if name in row else 0.0 for row in rows])
        if tasks[name].method is Method.PAIRED:
            parts = [(1, _change(first, second, name))]
        else:
            parts = [(sign, _outcomes(side.result.tasks[name])) for sign, side in ((1, second), (-1, first))]
        samples += [values for _, values in parts]
        columns += [sign * weight for sign, _ in parts]
    if not samples or min(len(sample) for sample in samples) < 2:
        return {}
    intervals = statistics.bootstrap_intervals(samples, np.stack(columns, axis=1))
    return dict(zip(rows, map(_points, intervals), strict=True))


def _change(first: Side, second: Side, name: str) -> NDArray[np.float64]:
    """Per query (n,): 1 where it is gained, -1 where it is lost, else 0."""
    change: NDArray[np.float64] = np.subtract(second.ranks[name].rank == 1, first.ranks[name].rank == 1, dtype=float)
    return change


def _hits(task: TaskResult) -> tuple[int, int]:
    return round(task.metrics[PRIMARY_METRIC] * task.num_pred), task.num_pred


def _outcomes(task: TaskResult) -> NDArray[np.float64]:
    """Hits and misses (n,) of a task without ranks, in no order."""
    hits, n = _hits(task)
    return np.repeat([1.0, 0.0], [hits, n - hits])


def _points(interval: Iterable[float]) -> tuple[float, float]:
    low, high = (100 * float(bound) for bound in interval)
    return low, high


def _notes(tasks: Sequence[TaskDifference], first: Side, second: Side) -> list[str]:
    notes = [f"{side.label} says nothing of its settings." for side in (first, second) if not settings_of(side)]
    unknown = [side.label for side in (first, second) if not any(data_of(side, t) for t in side.result.tasks.values())]
    notes += [f"{label} does not say on which data it was scored: equal data is assumed." for label in unknown]
    if any(task.method is Method.UNPAIRED for task in tasks):
        without = " and ".join(
            side.label
            for side in (first, second)
            if any(t.method is Method.UNPAIRED and t.task not in side.ranks for t in tasks)
        )
        notes.append(f"{without}: no per-query ranks, so the tests take the queries as independent and see less.")
    return notes
