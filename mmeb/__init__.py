"""Score, train and publish multimodal embedding models on MMEB.

    import mmeb

    model = mmeb.load_model("clip-vit-l14")
    result = mmeb.evaluate(model, tasks="all", data="demo", output="runs/demo")

The names below are imported when they are first used, so that `import mmeb` stays cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmeb.data.item import Item
    from mmeb.errors import MmebError
    from mmeb.evaluation.encode import encode
    from mmeb.evaluation.evaluate import evaluate
    from mmeb.models.loading import load_model
    from mmeb.results.schema import RunResult, TaskResult
    from mmeb.tasks import Task, get_task, get_tasks

_HOMES = {
    "Item": "mmeb.data.item",
    "MmebError": "mmeb.errors",
    "RunResult": "mmeb.results.schema",
    "Task": "mmeb.tasks",
    "TaskResult": "mmeb.results.schema",
    "encode": "mmeb.evaluation.encode",
    "evaluate": "mmeb.evaluation.evaluate",
    "get_task": "mmeb.tasks",
    "get_tasks": "mmeb.tasks",
    "load_model": "mmeb.models.loading",
}

__all__ = [
    "Item",
    "MmebError",
    "RunResult",
    "Task",
    "TaskResult",
    "encode",
    "evaluate",
    "get_task",
    "get_tasks",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmeb' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
