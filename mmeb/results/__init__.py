"""What a score file is, and where it is kept."""

from mmeb.results.schema import RunResult, TaskResult

__all__ = ["RunResult", "TaskResult"]
