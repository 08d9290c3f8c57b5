"""Where results lie: a run's folder, with each task's result as soon as there is one, and a submission's two files."""

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmeb.errors import MmebError
from mmeb.files import read_json, replacing, to_text, write_text
from mmeb.inputs import parse
from mmeb.results.ranks import RANKS_SUFFIX, Ranks, metrics_from_ranks, read_ranks, write_ranks, write_submission_ranks
from mmeb.results.schema import RunResult, TaskResult

RUN_FILE = "run.json"
RESULTS_FILE = "results.json"
CACHE_FOLDER = ".vectors"


@dataclass(frozen=True)
class _TaskFile:
    """`<task>.json`; `num_pred` and `num_data` stand among its metrics."""

    task: str
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any] = field(default_factory=dict)


class RunFolder:
    """`run.json`, `<task>.json` and `<task>.ranks.parquet` as each task ends, `results.json` at the end.

    A task is done when its `<task>.json` is there, which is written last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def cache(self) -> Path:
        """Where embeddings of unfinished work lie."""
        return self.path / CACHE_FOLDER

    def recorded(self) -> dict[str, Any] | None:
        """What `run.json` says, None where there is none. Raises MmebError where it can't be read."""
        path = self.path / RUN_FILE
        if not path.exists():
            return None
        content = read_json(path)
        identity = parse(dict[str, Any], content.get("identity", {}), f"{path}: identity")
        for part in ("model", "data"):
            parse(dict[str, Any], identity.get(part, {}), f"{path}: identity.{part}")
        return content

    def recorded_model_revision(self, model: str) -> str | None:
        """The commit of the model that an interrupted run here was made with, if it was this model."""
        recorded = (self.recorded() or {}).get("identity", {}).get("model", {})
        return recorded.get("revision") if recorded.get("name") == model else None

    def open(self, run: Mapping[str, Any], *, fresh: bool = False) -> None:
        """Start a run here, or resume an interrupted one.

        `run` is `run.json`: its `identity` holds all that affects a score. Raises MmebError where the folder holds a
        run of another identity, or can't be written; with `fresh` an earlier run's files are removed first.
        """
        if self.path.exists() and not self.path.is_dir():
            raise MmebError(f"The output {self.path} is a file, not a folder.")
        self._check_writable()
        if fresh:
            self._clear()
        self.refuse_other(run["identity"])
        write_text(self.path / RUN_FILE, to_text(run))

    def refuse_other(self, identity: Mapping[str, Any]) -> None:
        """Raises MmebError where the folder holds a run of another identity."""
        earlier = self.recorded()
        if earlier is not None and (differences := differing(earlier.get("identity", {}), identity)):
            shown = "; ".join(f"{name}: {old!r} there, {new!r} now" for name, old, new in differences[:4])
            raise MmebError(
                f"The output folder {self.path} belongs to another run ({shown}); "
                "choose another --output, or --fresh to discard that run."
            )

    def read_task(self, task: str) -> TaskResult | None:
        """The result of a task that is done, else None.

        Raises MmebError where the task's files can't be read or contradict each other.
        """
        path = self.path / f"{task}.json"
        if not path.exists() or not self.ranks_path(task).exists():
            return None
        content = parse(_TaskFile, read_json(path), str(path), noun="field", strict=True)
        metrics, ranks = dict(content.metrics), self.read_ranks(task)
        num_pred, num_data = metrics.pop("num_pred", -1), metrics.pop("num_data", -1)
        expected = metrics_from_ranks(ranks.rank)
        agree = content.task == task and num_pred == len(ranks) <= num_data < math.inf
        # as written, a NaN agrees with nothing
        if not agree or not all(abs(value - expected.get(name, value)) <= 1e-6 for name, value in metrics.items()):
            raise MmebError(f"{path} contradicts {self.ranks_path(task).name}; remove both, and run the task again.")
        return TaskResult(task, metrics, int(num_pred), int(num_data), content.provenance)

    def write_task(self, result: TaskResult, ranks: Ranks) -> None:
        write_ranks(self.ranks_path(result.task), ranks)
        write_text(self.path / f"{result.task}.json", to_text(result.to_json()))

    def write_results(self, result: RunResult) -> None:
        write_text(self.path / RESULTS_FILE, to_text(result.to_json()))

    def write_embeddings(self, task: str, **vectors: Any) -> None:
        """Write `<task>.safetensors` with float32 arrays (n, dim) by name."""
        from safetensors.numpy import save_file

        with replacing(self._embeddings_path(task)) as temporary:
            save_file(vectors, temporary)

    def has_embeddings(self, task: str) -> bool:
        return self._embeddings_path(task).exists()

    def _embeddings_path(self, task: str) -> Path:
        return self.path / f"{task}.safetensors"

    def ranks_path(self, task: str) -> Path:
        return self.path / f"{task}{RANKS_SUFFIX}"

    def read_ranks(self, task: str) -> Ranks:
        path = self.ranks_path(task)
        if (ranks := read_ranks(path).get(task)) is None:
            raise MmebError(f"{path} does not hold the ranks of {task}; run the task again.")
        return ranks

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise MmebError(
                f"The output folder {self.path} can't be written: {os.strerror(error.errno or 0)}."
            ) from None

    def _clear(self) -> None:
        """Remove the files of an earlier run; others stay."""
        recorded = self.path / RUN_FILE
        if not recorded.exists():
            return
        for path in (self.path / RESULTS_FILE, recorded):
            path.unlink(missing_ok=True)
        for ranks in self.path.glob(f"*{RANKS_SUFFIX}"):
            task = ranks.name.removesuffix(RANKS_SUFFIX)
            for path in (self.path / f"{task}.json", self._embeddings_path(task), ranks):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.cache, ignore_errors=True)


def ranks_path(submission: Path) -> Path:
    """Where the ranks of a submission `<model>.json` lie: `<model>.ranks.parquet`."""
    return submission.with_name(submission.name.removesuffix(".json") + RANKS_SUFFIX)


def load_ranks(path: Path) -> dict[str, Ranks]:
    """The ranks by task of a run folder, of its `results.json`, of one task in it, or of a submission.

    Empty where there are none. Raises MmebError for a file that can't be read.
    """
    folder = path if path.is_dir() else path.parent if path.name == RESULTS_FILE else None
    files = sorted(folder.glob(f"*{RANKS_SUFFIX}")) if folder else [ranks_path(path)]
    return {name: ranks for file in files if file.is_file() for name, ranks in read_ranks(file).items()}


def write_submission(path: Path, content: Mapping[str, Any], ranks: Mapping[str, Ranks]) -> None:
    """Write a result file and, beside it, its ranks if there are any: both, or neither where one can't be written."""
    with replacing(path) as temporary:
        temporary.write_text(to_text(content), encoding="utf-8")
        if ranks:
            write_submission_ranks(ranks_path(path), ranks)
        else:
            ranks_path(path).unlink(missing_ok=True)


def differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """The leaves in which two nested mappings differ, as (dotted name, old, new)."""
    leaves: list[tuple[str, Any, Any]] = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            leaves += differing(before, after, f"{prefix}{name}.")
        elif before != after:
            leaves.append((f"{prefix}{name}", before, after))
    return leaves
