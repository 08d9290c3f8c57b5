"""Result files of every sort, with ranks drawn from a seed."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from mmeb.results.ranks import Ranks, metrics_from_ranks
from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.store import RunFolder
from mmeb.tasks import TASKS

NAMES = tuple(task.name for task in TASKS)


def random_ranks(seed: int, n: int = 1000) -> Ranks:
    """Ranks from 1 to 20, low ones more often; a third of the queries with ties."""
    generator = np.random.default_rng(seed)
    ranks = Ranks.empty(n)
    ranks.rank[:] = np.minimum(generator.geometric(0.4, n), 20)
    ranks.predicted[:] = ranks.rank - 1
    ranks.tied[:] = np.where(generator.random(n) < 1 / 3, ranks.rank - 1, 0)
    return ranks


def result(
    model: str = "tiny", tasks: Iterable[str] = NAMES, *, n: int = 1000, kind: str = "hub", **metadata: Any
) -> RunResult:
    """A result whose metrics are those of `random_ranks`, the position of a task being its seed."""
    data = {"kind": kind, "repository": "somewhere/data", "revision": "abc"}
    scored = {
        name: TaskResult(name, metrics_from_ranks(random_ranks(seed, n).rank), n, n, {"data": data})
        for seed, name in enumerate(tasks)
    }
    return RunResult({"model_name": model, **metadata}, scored, {"data": data})


def report(model: str = "tiny", tasks: Iterable[str] = NAMES, **options: Any) -> dict[str, Any]:
    """The JSON of `result`."""
    return result(model, tasks, **options).to_json()


def write(path: Path, content: Any) -> Path:
    """`content` as JSON, NaN and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def write_run(folder: Path, model: str = "tiny", tasks: Iterable[str] = NAMES, **options: Any) -> Path:
    """A finished run folder with per-query ranks."""
    run, tasks = RunFolder(folder), tuple(tasks)
    finished = result(model, tasks, **options)
    for seed, name in enumerate(tasks):
        run.write_task(finished.tasks[name], random_ranks(seed, finished.tasks[name].num_data))
    run.write_results(finished)
    return folder
