"""What a score file is: the public MMEB leaderboard's layout plus our provenance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGE_PART = "image"

QUERIES = 1000
"""Queries of every task in the official data, and so of every published table (VLM2Vec paper, Table 1)."""


@dataclass(frozen=True)
class TaskResult:
    """The scores of one task.

    `metrics` maps names such as `hit@1` to fractions; `num_pred` queries were scored of the `num_data` that the task
    has. `provenance` says per task: `data` (repository, revision, fingerprint), `ties`, `hit@1_ties_for_model`,
    `embeddings` (statistics), `truncated_texts`, `seconds`, `notes`.
    """

    task: str
    metrics: Mapping[str, float]
    num_pred: int
    num_data: int
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The file of the task in a run folder, `<task>.json`."""
        counts = {"num_pred": self.num_pred, "num_data": self.num_data}
        return {"task": self.task, "metrics": {**self.metrics, **counts}, "provenance": dict(self.provenance)}


@dataclass(frozen=True)
class RunResult:
    """A run, or a submission: `metadata` and the metrics are the public leaderboard's, `provenance` is ours."""

    metadata: Mapping[str, Any]
    tasks: Mapping[str, TaskResult]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """`results.json`; the provenance of each task stands under `provenance.tasks`."""
        metrics = {name: result.to_json()["metrics"] for name, result in self.tasks.items()}
        by_task = {name: dict(result.provenance) for name, result in self.tasks.items() if result.provenance}
        provenance = {**self.provenance, **({"tasks": by_task} if by_task else {})}
        return {"metadata": dict(self.metadata), "metrics": {IMAGE_PART: metrics}, "provenance": provenance}

    @property
    def is_demo(self) -> bool:
        """Whether the scores are on generated demo data: such a result never enters the leaderboard."""
        return bool(self.provenance.get("data", {}).get("kind") == "demo")
