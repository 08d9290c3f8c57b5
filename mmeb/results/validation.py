"""Whether a score file can be true: its names, ranges, counts, arithmetic, and its ranks."""

import datetime
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mmeb.errors import MmebError
from mmeb.inputs import suggest
from mmeb.results.averages import averages, percent
from mmeb.results.layouts import Reading, published_source, read
from mmeb.results.ranks import CUTOFFS, Ranks, contradiction, metrics_from_ranks
from mmeb.results.schema import QUERIES, RunResult, TaskResult
from mmeb.results.store import load_ranks
from mmeb.results.text import plain
from mmeb.tasks import GROUPS, PRIMARY_METRIC, TASKS, TASKS_BY_NAME, MetaTask

AVERAGE_TOLERANCE = 0.051
"""Points by which a stated average may differ from the recomputed one: half of a last digit, and rounding errors."""

_METRIC_TOLERANCE = 1e-4  # for files that round to four digits; one query in a thousand is ten times that
_RANK_TOLERANCE = 1e-6  # ours are written at full precision
_LONGEST_NAME = 200
_WORTH: Mapping[str, Callable[[int], float]] = {
    "mrr": lambda rank: 1 / rank,
    "ndcg_linear": lambda rank: 1 / math.log2(rank + 1),
}
"""What a query at a rank adds to a metric."""
_NUMBERS = ("model_size", "embedding_dimension", "max_length_tokens")


def validate(reading: Reading, ranks: Mapping[str, Ranks], *, partial: bool = False, demo: bool = False) -> list[str]:
    """Everything that is wrong with a file, one line each; see `flagged` for what a published one says.

    `ranks` are the per-query ranks by task, as far as there are any. `partial` permits missing tasks, `demo` demo
    results, whose tasks have other numbers of queries.
    """
    result = reading.result
    averages_only = not result.tasks and bool(reading.stated)
    lines = list(reading.problems)
    lines += _metadata(result.metadata)
    if result.is_demo and not demo:
        lines.append("these are demo results, which never enter a leaderboard")
    lines += _names(
        result.tasks, () if partial or averages_only or (reading.problems and not result.tasks) else TASKS_BY_NAME
    )
    for task in result.tasks.values():
        lines += _counts(task, result, demo=demo)
        lines += _relations(task)
        if task.task in ranks:
            lines += _against_ranks(task, ranks[task.task])
    lines += [f"{name}: there are ranks but no scores" for name in ranks if name not in result.tasks]
    if not published_source(result):
        lines += _stated_averages(result, reading.stated)
    return [plain(line) for line in lines]


def flagged(reading: Reading) -> list[str]:
    """Stated averages of a published figure that contradict its other figures, one line each.

    The file is right when it says what its source says, so this is no mistake in it, but its row is marked.
    """
    if not published_source(reading.result):
        return []
    return [plain(line) for line in _stated_averages(reading.result, reading.stated)]


def _metadata(metadata: Mapping[str, object]) -> Iterator[str]:
    name = metadata.get("model_name")
    if not isinstance(name, str) or not name.strip():
        yield "metadata: model_name is missing"
    elif len(name) > _LONGEST_NAME or plain(name) != name:
        yield f"metadata: model_name has more than {_LONGEST_NAME} characters, or control characters or odd spaces"
    for key in _NUMBERS:
        value = metadata.get(key)
        if isinstance(value, bool) or (value is not None and not (isinstance(value, int | float) and 0 < value < 1e12)):
            yield f"metadata: {key} is {value!r}, not a number above 0"
    url = metadata.get("url")
    if url is not None and not is_web_address(url):
        yield f"metadata: url is {url!r}, not an http or https address"
    date = metadata.get("model_release_date")
    if date is not None and not _is_date(date):
        yield f"metadata: model_release_date is {date!r}, not a date such as 2025-04-01"


def is_web_address(url: object) -> bool:
    """Whether a table may link to it: a script or a file may not."""
    if not isinstance(url, str) or re.search(r"[\s<>\"']", url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.netloc)


def _is_date(value: object) -> bool:
    try:
        datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        return False
    return True


def _names(tasks: Iterable[str], expected: Collection[str]) -> Iterator[str]:
    given = set(tasks)
    for name in sorted(given - TASKS_BY_NAME.keys()):
        hint = suggest(name.replace("_", "-"), TASKS_BY_NAME, cutoff=0.85)
        yield f"{name}: no task of this benchmark" + (f"; {hint}" if hint else "")
    missing = [name for name in expected if name not in given]
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        yield f"{len(missing)} of {len(TASKS_BY_NAME)} tasks are missing: {shown}"


def _counts(task: TaskResult, result: RunResult, *, demo: bool) -> Iterator[str]:
    if task.num_pred != task.num_data:
        yield f"{task.task}: {task.num_pred} queries were scored of {task.num_data}"
    known_data = bool(task.provenance.get("data")) or demo
    if task.task in TASKS_BY_NAME and task.num_data != QUERIES and not known_data:
        yield f"{task.task}: {task.num_data} queries, the task has {QUERIES}"
    if task.num_pred:
        for metric in (f"{name}@{k}" for name in ("hit", "recall") for k in CUTOFFS):
            right = task.metrics.get(metric, 0) * task.num_pred
            if abs(right - round(right)) > _METRIC_TOLERANCE * task.num_pred:
                yield f"{task.task}: {metric} {task.metrics[metric]:g} is no whole number of {task.num_pred} queries"


def _relations(task: TaskResult) -> Iterator[str]:
    """What must hold between the metrics of a ranking with one relevant candidate per query.

    The reference counts each copy of the ground truth among the candidates as relevant in map and ndcg, which real
    candidate lists have: there these two may be higher. Ours, which have a provenance, count it once.
    """
    copies = not task.provenance
    for k in CUTOFFS:
        yield from _equal(task, f"hit@{k}", f"recall@{k}", 1)
        yield from _equal(task, f"hit@{k}", f"precision@{k}", 1 / k)
        yield from _equal(task, f"hit@{k}", f"f1@{k}", 2 / (k + 1))
        yield from _equal(task, f"mrr@{k}", f"map@{k}", 1, may_exceed=copies)
        yield from _equal(task, f"ndcg_linear@{k}", f"ndcg_exponential@{k}", 1)
    yield from _equal(task, "hit@1", "mrr@1", 1)
    yield from _equal(task, "hit@1", "ndcg_linear@1", 1)
    for low, high in itertools.pairwise(CUTOFFS):
        yield from _grows(task, low, high, copies=copies)


def _equal(task: TaskResult, one: str, other: str, factor: float, *, may_exceed: bool = False) -> Iterator[str]:
    if one not in task.metrics or other not in task.metrics:
        return
    expected = task.metrics[one] * factor
    excess = task.metrics[other] - expected
    if excess < -_METRIC_TOLERANCE or (excess > _METRIC_TOLERANCE and not may_exceed):
        stated = f"{other} is {task.metrics[other]:g}"
        yield f"{task.task}: {stated}, but {one} {task.metrics[one]:g} makes it {expected:g}"


def _grows(task: TaskResult, low: int, high: int, *, copies: bool) -> Iterator[str]:
    """From cutoff `low` to `high`, queries join whose ranks are low+1 to high: that bounds the gain of each metric."""
    hits = [task.metrics.get(f"hit@{k}") for k in (low, high)]
    if hits[0] is None or hits[1] is None:
        return
    joined = hits[1] - hits[0]
    if joined < -_METRIC_TOLERANCE:
        yield f"{task.task}: hit@{high} {hits[1]:g} is below hit@{low} {hits[0]:g}"
        return
    for metric, worth in _WORTH.items():
        if f"{metric}@{low}" not in task.metrics or f"{metric}@{high}" not in task.metrics:
            continue
        gain = task.metrics[f"{metric}@{high}"] - task.metrics[f"{metric}@{low}"]
        low_gain, high_gain = joined * worth(high), joined * worth(low + 1)
        if copies and metric == "ndcg_linear":
            high_gain = 1.0
        if not low_gain - _METRIC_TOLERANCE <= gain <= high_gain + _METRIC_TOLERANCE:
            yield (
                f"{task.task}: {metric}@{high} is {gain:.4f} above {metric}@{low}, but hit@{low} and hit@{high} "
                f"leave it between {low_gain:.4f} and {high_gain:.4f}"
            )


def _against_ranks(task: TaskResult, ranks: Ranks) -> Iterator[str]:
    if len(ranks.rank) != task.num_pred:
        yield f"{task.task}: {len(ranks.rank)} ranks for {task.num_pred} scored queries"
        return
    if problem := contradiction(ranks):
        yield f"{task.task}: {problem}"
        return
    for metric, value in metrics_from_ranks(ranks.rank).items():
        stated = task.metrics.get(metric, value)
        if abs(stated - value) > _RANK_TOLERANCE:
            yield f"{task.task}: {metric} is {stated:g}, its ranks make it {value:g}"


def _stated_averages(result: RunResult, stated: Mapping[str, float]) -> Iterator[str]:
    means = averages({name: percent(task.metrics[PRIMARY_METRIC]) for name, task in result.tasks.items()})
    for group, value in stated.items():
        mean = means[group]
        if mean is not None and abs(mean - value) > AVERAGE_TOLERANCE:
            yield f"stated {group} average {value:g}, but its {len(GROUPS[group])} tasks average {mean:.2f}"
    metas = tuple(meta.value for meta in MetaTask)
    for parts in (metas, ("ind", "ood")):
        if means["overall"] is None and {"overall", *parts} <= stated.keys():
            mean = sum(stated[part] * len(GROUPS[part]) for part in parts) / len(TASKS)
            if abs(mean - stated["overall"]) > AVERAGE_TOLERANCE + 0.05:  # the parts are rounded too
                yield (
                    f"stated overall average {stated['overall']:g}, but the stated averages of "
                    f"{', '.join(parts)} make it {mean:.2f}"
                )


@dataclass(frozen=True)
class Report:
    """What there is to say of one file: its problems, or in a few words what it holds; and its exit code.

    `flagged` are contradictions of the source of a published figure, which leave the file valid.
    """

    path: Path
    problems: tuple[str, ...]
    flagged: tuple[str, ...] = ()
    summary: str = ""
    exit_code: int = 0


def check_files(paths: Sequence[Path], *, partial: bool = False, demo: bool = False) -> list[Report]:
    """Validate files: a report for each, in their order.

    Exit code 0 is a file without a problem, 1 one in which something is wrong, 2 one that can't be read at all. That
    two files are of one model is a problem of the second.
    """
    reports = []
    first: dict[tuple[str, bool], Path] = {}
    for path in paths:
        try:
            reading, ranks = read(path), load_ranks(path)
        except MmebError as error:
            reports.append(Report(path, (str(error).removeprefix(f"{path} "),), exit_code=2))
            continue
        problems = validate(reading, ranks, partial=partial, demo=demo)
        if isinstance(name := reading.result.metadata.get("model_name"), str):
            earlier = first.setdefault((name, bool(published_source(reading.result))), path)
            if earlier is not path:
                problems.append(plain(f"{earlier} is of the same model, {name!r}"))
        scored, queries = len(reading.result.tasks), "with" if ranks else "without"
        summary = f"{scored}/{len(TASKS_BY_NAME)} tasks, {queries} per-query ranks, read as {reading.layout}"
        reports.append(Report(path, tuple(problems), tuple(flagged(reading)), summary, int(bool(problems))))
    return reports
