"""What is compared: a run, a submission or a published table, with its per-query ranks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb.errors import MmebError
from mmeb.results import published
from mmeb.results.layouts import read
from mmeb.results.ranks import Ranks
from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.store import load_ranks
from mmeb.results.text import plain
from mmeb.tasks import PRIMARY_METRIC

_SETTINGS = ("model", "data", "limit", "libraries", "hardware")  # the parts of a provenance that affect scores


@dataclass(frozen=True)
class Side:
    """A result to compare, with the per-query ranks of its tasks as far as it has any."""

    label: str
    result: RunResult
    ranks: Mapping[str, Ranks]


def load_sides(paths: Iterable[Path], published_names: Iterable[str] = ()) -> list[Side]:
    """The published tables first, then the runs, result files or submissions; each under a unique label.

    Raises MmebError for a file that can't be read, and for one whose scores are not usable or belie its ranks.
    """
    paths = list(paths)
    tables = [published.get(name) for name in published_names]
    sides = [Side(f"{table.metadata['model_name']} (published)", table, {}) for table in tables]
    loaded = [_load(path) for path in paths]
    labels = [side.label for side in loaded]
    for side, path in zip(loaded, paths, strict=True):
        if labels.count(side.label) > 1:
            side = Side(f"{side.label} ({path})", side.result, side.ranks)
        sides.append(side)
    return sides


def _load(path: Path) -> Side:
    reading = read(path)
    listed = f"`mmeb leaderboard validate {path}` lists all that is wrong."
    if reading.problems:
        raise MmebError(f"{path} can't be compared: {reading.problems[0]}; {listed}")
    result, ranks = reading.result, load_ranks(path)
    if not result.tasks:
        raise MmebError(f"{path} has no scores by task, so there is nothing to compare.")
    for name, task in result.tasks.items():
        if name in ranks and abs((ranks[name].rank == 1).mean() - task.metrics[PRIMARY_METRIC]) > 1e-6:
            raise MmebError(
                f"{path}: the per-query ranks of {name} give another {PRIMARY_METRIC} than stated; {listed}"
            )
    stated = result.metadata.get("model_name")
    return Side((plain(stated) if isinstance(stated, str) else "") or path.stem, result, ranks)


def mismatch(first: Side, second: Side, name: str) -> str | None:
    """Why the scores of a task are not over the same data, or None where they are or where nothing is known."""
    a, b = first.result.tasks[name], second.result.tasks[name]
    if a.num_pred != b.num_pred:
        return f"{a.num_pred} queries against {b.num_pred}"
    if a.num_pred == 0:
        return "no queries"
    data_a, data_b = data_of(first, a), data_of(second, b)
    known = [key for key in ("fingerprint", "revision") if data_a.get(key) and data_b.get(key)]
    if known and data_a[known[0]] != data_b[known[0]]:
        return f"other data ({known[0]} {str(data_a[known[0]])[:12]} against {str(data_b[known[0]])[:12]})"
    if name in first.ranks and name in second.ranks and len(first.ranks[name].rank) != len(second.ranks[name].rank):
        return f"{len(first.ranks[name].rank)} ranks against {len(second.ranks[name].rank)}"
    return None


def data_of(side: Side, task: TaskResult) -> dict[str, Any]:
    """Where a task's rows came from, as far as the side says."""
    parts = (side.result.provenance.get("data"), task.provenance.get("data"))
    return {key: value for part in parts if isinstance(part, Mapping) for key, value in part.items()}


def settings_of(side: Side) -> dict[str, Any]:
    """All that affects scores, as far as the side says."""
    return {key: side.result.provenance[key] for key in _SETTINGS if key in side.result.provenance}
