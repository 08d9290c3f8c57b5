"""The benchmark's averages: plain means over its tasks, at full precision, or none where a member is missing."""

import math
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal

from mmeb.tasks import GROUPS

_DIGITS = 9  # that are kept of a percentage: the rest are errors of binary fractions


def averages(scores: Mapping[str, float]) -> dict[str, float | None]:
    """Average `scores` (task name to score, in any unit) over each of the GROUPS.

    A group with a missing member has None: a mean over whatever is there would look better than it is. Names that are
    not the benchmark's never enter.
    """
    means: dict[str, float | None] = {}
    for group, tasks in GROUPS.items():
        members = [scores[task.name] for task in tasks if task.name in scores]
        means[group] = math.fsum(members) / len(tasks) if len(members) == len(tasks) else None
    return means


def coverage(scores: Mapping[str, float], group: str = "overall") -> tuple[int, int]:
    """How many tasks of the group have a score, and how many it has."""
    tasks = GROUPS[group]
    return sum(task.name in scores for task in tasks), len(tasks)


def round_half_up(value: float, digits: int = 1) -> float:
    """Round halves away from zero, as the published tables do: 44.65 becomes 44.7.

    The error of binary sums is removed first, so that a mean of 44.65 that came out as 44.64999999999999 is a half.
    """
    exact = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-_DIGITS), rounding=ROUND_HALF_EVEN)
    return float(exact.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def percent(score: float) -> float:
    """A fraction in percent, without the error of the multiplication: 0.558 is 55.8, not 55.800000000000004."""
    return round(100 * score, _DIGITS)


def one_decimal(value: float) -> str:
    """A percentage as every table shows it."""
    return f"{round_half_up(value):.1f}"


def mean_or_coverage(mean: float | None, scores: Mapping[str, float], group: str) -> str:
    """The mean with one decimal, or how many of the group's tasks there are where some are missing."""
    if mean is not None:
        return one_decimal(mean)
    done, total = coverage(scores, group)
    return f"{done}/{total}"
