"""Runs without a model: results with ranks of one's choosing or drawn from a seed, and the files that they make."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmeb.results.ranks import Ranks, metrics_from_ranks
from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.store import RunFolder
from mmeb.tasks import TASKS

Hits = Mapping[str, NDArray[np.bool_]]  # by task, whether each query found its candidate
Tasks = Iterable[str] | Hits

NAMES = tuple(task.name for task in TASKS)


def hits_of(rate: float, names: tuple[str, ...] = NAMES, n: int = 1000) -> dict[str, NDArray[np.bool_]]:
    """The same share of hits on every task, the first queries."""
    return {name: np.arange(n) < round(rate * n) for name in names}


def flipped(hits: Hits, name: str, lost: int = 0, gained: int = 0) -> dict[str, NDArray[np.bool_]]:
    """`hits` but for some queries of one task that changed sides."""
    changed = hits[name].copy()
    changed[np.flatnonzero(hits[name])[:lost]] = False
    changed[np.flatnonzero(~hits[name])[:gained]] = True
    return {**hits, name: changed}


def random_ranks(seed: int, n: int = 1000) -> Ranks:
    """Ranks from 1 to 20, low ones more often; a third of the queries with ties."""
    generator = np.random.default_rng(seed)
    ranks = Ranks.empty(n)
    ranks.rank[:] = np.minimum(generator.geometric(0.4, n), 20)
    ranks.predicted[:] = ranks.rank - 1
    ranks.tied[:] = np.where(generator.random(n) < 1 / 3, ranks.rank - 1, 0)
    return ranks


def ranks_of(tasks: Tasks, n: int = 1000) -> dict[str, Ranks]:
    """Rank 1 for a hit and 7 for a miss; for tasks given by name, `n` random ranks, the position being the seed."""
    if not isinstance(tasks, Mapping):
        return {name: random_ranks(seed, n) for seed, name in enumerate(tasks)}
    by_task = {}
    for name, hits in tasks.items():
        by_task[name] = ranks = Ranks.empty(len(hits))
        ranks.rank[:] = np.where(hits, 1, 7)
    return by_task


def result(
    tasks: Tasks = NAMES,
    name: str = "tiny",
    *,
    n: int = 1000,
    metadata: Mapping[str, Any] | None = None,
    **provenance: Any,
) -> RunResult:
    """The result of `ranks_of(tasks, n)`; `provenance` are parts such as `libraries`, `data` or `model`."""
    data = {"kind": "hub", "repository": "somewhere/data", "revision": "abc", "fingerprint": "f" * 16}
    data |= provenance.pop("data", {})
    scored = {
        task: TaskResult(task, metrics_from_ranks(ranks.rank), len(ranks), len(ranks), {"data": data})
        for task, ranks in ranks_of(tasks, n).items()
    }
    return RunResult({"model_name": name, **(metadata or {})}, scored, {"data": data, **provenance})


def report(tasks: Tasks = NAMES, name: str = "tiny", **options: Any) -> dict[str, Any]:
    """The JSON of `result`."""
    return result(tasks, name, **options).to_json()


def write(path: Path, content: Any) -> Path:
    """`content` as JSON, NaN and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_run(folder: Path, tasks: Tasks = NAMES, name: str = "tiny", *, n: int = 1000, **options: Any) -> Path:
    """A finished run folder with per-query ranks; `options` are those of `result`."""
    run, finished = RunFolder(folder), result(tasks, name, n=n, **options)
    for task, ranks in ranks_of(tasks, n).items():
        run.write_task(finished.tasks[task], ranks)
    run.write_results(finished)
    return folder
