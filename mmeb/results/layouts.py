"""Score files in all layouts that are in use, read into one form; nothing in them is trusted."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from mmeb.errors import MmebError
from mmeb.files import read_json
from mmeb.inputs import shown
from mmeb.results.schema import IMAGE_PART, QUERIES, RunResult, TaskResult
from mmeb.results.store import RESULTS_FILE, RUN_FILE
from mmeb.results.text import plain
from mmeb.tasks import GROUP_TITLES, GROUPS, PRIMARY_METRIC, TASKS_BY_NAME

MAX_BYTES = 20_000_000
"""A submission with full provenance takes a tenth of a megabyte; a larger file is refused before it is read."""

ABSENT = frozenset({"FILE_N/A", "DIR_N/A", "JSON_ERROR", "READ_ERROR"})
"""What the public leaderboard's report script writes in place of a task's scores that it did not find."""

_LARGEST = 1e15  # beyond it, and for NaN, a number in a score file is a mistake
_SCORE_SUFFIX = "_score.json"
_PARTS = frozenset({IMAGE_PART, "video", "visdoc"})
_ROW_GROUPS = {"Overall": "overall", **{title: group for group, title in GROUP_TITLES.items()}}


@dataclass
class Reading:
    """What a file says, with only usable numbers in `result`; all that was wrong on the way stands in `problems`.

    `stated` are the averages that the file itself states, in percent; `unscored` the tasks that it names without
    scores; `layout` says in words as what it was read.
    """

    path: Path
    layout: str
    result: RunResult
    stated: Mapping[str, float] = field(default_factory=dict)
    unscored: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)


def read(path: Path) -> Reading:
    """Read a score file, a run folder, or a folder of `<task>_score.json` files.

    Raises MmebError for what can't be read at all: missing, too large, not JSON, of no layout that is known.
    """
    if path.is_dir():
        return _read_folder(path)
    problems: list[str] = []
    content = _load(path, problems)
    if path.name.endswith(_SCORE_SUFFIX) and not isinstance(content.get("metrics"), dict):
        return _from_scores(path, "a task's score file", {path.name.removesuffix(_SCORE_SUFFIX): content}, problems)
    if "task" in content and isinstance(content.get("metrics"), dict):
        return _from_run_task(path, content, problems)
    if "metrics" in content:
        return _from_report(path, content, problems)
    if "Model" in content or "Models" in content:
        return _from_row(path, content, problems)
    if content.keys() & TASKS_BY_NAME or any(
        isinstance(e, dict) and {PRIMARY_METRIC, "acc"} & e.keys() for e in content.values()
    ):
        return _from_scores(path, "scores by task, without metadata", content, problems)
    raise MmebError(
        f"{path} is in no layout of score files that is known; docs/results.md shows them, "
        "`mmeb leaderboard submit` writes one."
    )


def published_source(result: RunResult) -> str:
    """Where a published figure was published, empty for any other."""
    published = result.provenance.get("published")
    source = published.get("source") if isinstance(published, dict) else None
    return plain(source) if isinstance(source, str) else ""


def _read_folder(path: Path) -> Reading:
    if (path / RESULTS_FILE).is_file():
        return read(path / RESULTS_FILE)
    files = sorted([*path.glob(f"*{_SCORE_SUFFIX}"), *path.glob(f"{IMAGE_PART}/*{_SCORE_SUFFIX}")])
    if not files:
        if (path / RUN_FILE).is_file():
            raise MmebError(f"{path} holds an unfinished run; the same `mmeb run` command takes it up again.")
        raise MmebError(f"{path} holds neither {RESULTS_FILE} nor <task>{_SCORE_SUFFIX} files.")
    problems: list[str] = []
    scores = {file.name.removesuffix(_SCORE_SUFFIX): _load(file, problems) for file in files}
    return _from_scores(path, f"a folder of <task>{_SCORE_SUFFIX} files", scores, problems)


def _load(path: Path, problems: list[str]) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        problems.extend(f"{name!r} occurs {names.count(name)} times" for name in set(names) if names.count(name) > 1)
        return dict(pairs)

    if path.is_file() and (size := path.stat().st_size) > MAX_BYTES:
        raise MmebError(
            f"{path} has {size / 1e6:.0f} MB, a score file at most {MAX_BYTES / 1e6:.0f} MB: it was not read."
        )
    return read_json(path, to_dict=unique)


def _from_report(path: Path, content: Mapping[str, Any], problems: list[str]) -> Reading:
    """Our own file and the public leaderboard's: metadata, metrics by part and task."""
    metadata = _mapping(content.get("metadata"), "metadata", problems)
    metrics = _mapping(content["metrics"], "metrics", problems)
    provenance = _mapping(content.get("provenance", {}), "provenance", problems)
    by_task = _mapping(provenance.pop("tasks", {}), "provenance.tasks", problems)
    if IMAGE_PART in metrics or not metrics.keys() - _PARTS:
        image = metrics.get(IMAGE_PART, {})
        image = {} if isinstance(image, str) and image in ABSENT else _mapping(image, f"metrics.{IMAGE_PART}", problems)
    else:
        problems.append(f"the tasks stand directly under 'metrics', they belong under 'metrics.{IMAGE_PART}'")
        image = metrics
    if "data" in provenance:
        provenance["data"] = _mapping(provenance["data"], "provenance.data", problems)
    tasks, unscored = _tasks(image, by_task, problems)
    stated = _stated(provenance.get("stated_averages", {}), "stated_averages", problems)
    return Reading(path, "a report", RunResult(metadata, tasks, provenance), stated, unscored, problems)


def _from_scores(path: Path, layout: str, scores: Mapping[str, Any], problems: list[str]) -> Reading:
    """Scores by task and nothing else; the file's or folder's name has to do as the model's."""
    tasks, unscored = _tasks(scores, {}, problems)
    return Reading(path, layout, RunResult({"model_name": path.stem}, tasks, {}), {}, unscored, problems)


def _from_run_task(path: Path, content: Mapping[str, Any], problems: list[str]) -> Reading:
    """One `<task>.json` of a run folder, which says of itself on which data it was scored."""
    name, provenance = str(content["task"]), _mapping(content.get("provenance", {}), "provenance", problems)
    tasks, unscored = _tasks({name: content["metrics"]}, {name: provenance}, problems)
    data = {"data": _mapping(provenance["data"], "provenance.data", problems)} if "data" in provenance else {}
    result = RunResult({"model_name": path.stem}, tasks, data)
    return Reading(path, "a task of a run folder", result, {}, unscored, problems)


def _from_row(path: Path, content: Mapping[str, Any], problems: list[str]) -> Reading:
    """A row of the first public leaderboard: averages, and perhaps tasks, in percent."""
    keys = {"model_name": ("Model", "Models"), "url": ("URL",), "model_size": ("Model Size(B)",)}
    metadata = {ours: content[theirs] for ours, names in keys.items() for theirs in names if theirs in content}
    metadata["data_source"] = content.get("Data Source", "Self-Reported")
    stated = _stated({_ROW_GROUPS[name]: content[name] for name in content if name in _ROW_GROUPS}, "row", problems)
    in_percent = {name: value for name, value in content.items() if name in TASKS_BY_NAME}
    scores = _stated(in_percent, "row", problems, TASKS_BY_NAME)
    tasks = {name: TaskResult(name, {PRIMARY_METRIC: score / 100}, QUERIES, QUERIES) for name, score in scores.items()}
    return Reading(path, "a row of the first public leaderboard", RunResult(metadata, tasks), stated, (), problems)


def _mapping(value: Any, name: str, problems: list[str]) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    problems.append(f"{name!r} is {shown(value)}, not an object" if value is not None else f"{name!r} is missing")
    return {}


def _stated(averages: Any, where: str, problems: list[str], known: Container[str] = GROUPS) -> dict[str, float]:
    """Percentages by group or task; invalid ones are reported."""
    usable = {}
    for name, value in _mapping(averages, where, problems).items():
        if name not in known:
            problems.append(f"{where}: {name!r} is no group of the benchmark")
        elif not _is_number(value) or not 0 <= value <= 100:
            problems.append(f"{where}: {name} is {shown(value)}, not a percentage")
        else:
            usable[name] = float(value)
    if usable and 0 < max(usable.values()) <= 1:
        problems.append(f"{where}: fractions (up to {max(usable.values())}) where percent is expected; multiply by 100")
        return {}
    return usable


def _tasks(
    entries: Mapping[str, Any], by_task: Mapping[str, Any], problems: list[str]
) -> tuple[dict[str, TaskResult], tuple[str, ...]]:
    """The tasks with usable scores, and the names of those without."""
    results, unscored, in_percent = {}, [], {}
    for name, entry in entries.items():
        if isinstance(entry, str) and entry in ABSENT:
            unscored.append(name)
            continue
        if not isinstance(entry, dict):
            problems.append(f"{name}: {shown(entry)} in place of scores")
            continue
        primary = entry.get(PRIMARY_METRIC, entry.get("acc"))
        if _is_number(primary) and 1 < primary <= 100:
            in_percent[name] = primary
            continue
        provenance = by_task.get(name, {})
        if (result := _task(name, entry, provenance if isinstance(provenance, dict) else {}, problems)) is not None:
            results[name] = result
    if in_percent:
        name, score = next(iter(in_percent.items()))
        more = f" and {len(in_percent) - 1} more tasks" if len(in_percent) > 1 else ""
        problems.append(f"{name} ({score}){more}: scores in percent where fractions are expected; divide by 100")
    return results, tuple(unscored)


def _task(name: str, entry: Mapping[str, Any], provenance: Mapping[str, Any], problems: list[str]) -> TaskResult | None:
    metrics, counts = {}, {}
    for key, value in entry.items():
        if key.startswith("num_"):
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
                problems.append(f"{name}: {key} is {shown(value)}, not a count")
            else:
                counts[key] = value
        elif not _is_number(value) or not 0 <= value <= 1:
            problems.append(f"{name}: {key} is {shown(value)}, not a fraction from 0 to 1")
        else:
            metrics[key] = float(value)
    if "acc" in metrics and PRIMARY_METRIC not in metrics:
        metrics[PRIMARY_METRIC] = metrics.pop("acc")
    if "num_pred" not in counts:
        problems.append(f"{name}: num_pred, the number of queries that were scored, is missing")
    if "num_correct" in counts and PRIMARY_METRIC in metrics and "num_pred" in counts:
        right, of = counts["num_correct"], counts["num_pred"]
        if abs(right - metrics[PRIMARY_METRIC] * of) > 1e-3:
            problems.append(f"{name}: {right} right of {of} make no acc of {metrics[PRIMARY_METRIC]}")
    if PRIMARY_METRIC not in metrics:
        if not any(line.startswith(f"{name}: {key} ") for line in problems for key in (PRIMARY_METRIC, "acc")):
            problems.append(f"{name}: {PRIMARY_METRIC} is missing")
        return None
    num_pred = counts.get("num_pred", 0)
    return TaskResult(name, metrics, num_pred, counts.get("num_data", num_pred), provenance)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST
