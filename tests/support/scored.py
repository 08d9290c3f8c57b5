"""Run folders with ranks of our choosing, and the command line in the test's own process."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmeb.cli.main import main
from mmeb.results.ranks import Ranks, metrics_from_ranks
from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.store import RunFolder
from mmeb.tasks import TASKS

Hits = Mapping[str, NDArray[np.bool_]]
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


def result_of(hits: Hits, called: str = "tiny", **provenance: Any) -> RunResult:
    data = {"kind": "hub", "revision": "abc", "fingerprint": "f" * 16, **provenance.pop("data", {})}
    tasks = {
        name: TaskResult(name, metrics_from_ranks(ranks_of(hit).rank), len(hit), len(hit), {"data": data})
        for name, hit in hits.items()
    }
    return RunResult({"model_name": called}, tasks, {"data": data, **provenance})


def ranks_of(hit: NDArray[np.bool_]) -> Ranks:
    ranks = Ranks.empty(len(hit))
    ranks.rank[:] = np.where(hit, 1, 7)
    return ranks


def write_run(path: Path, hits: Hits, called: str = "tiny", **provenance: Any) -> Path:
    """A finished run folder; `provenance` are parts such as `libraries`, `data` or `model`."""
    folder, result = RunFolder(path), result_of(hits, called, **provenance)
    for name, hit in hits.items():
        folder.write_task(result.tasks[name], ranks_of(hit))
    folder.write_results(result)
    return path


class Called:
    """What a command left: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path, run: Callable[..., None] = main) -> Called:
    """`mmeb ARGUMENTS` in this process."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        run([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return Called(int(exited.value.code or 0), printed.out, printed.err)
