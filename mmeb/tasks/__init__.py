"""The 36 tasks of MMEB: what they are, without data, models or the network."""

from mmeb.tasks.prompt import PLACEHOLDER, Prompt
from mmeb.tasks.registry import TASKS, get_task, get_tasks
from mmeb.tasks.task import PRIMARY_METRIC, MetaTask, Modality, Task

__all__ = ["PLACEHOLDER", "PRIMARY_METRIC", "TASKS", "MetaTask", "Modality", "Prompt", "Task", "get_task", "get_tasks"]
