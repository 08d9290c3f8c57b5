"""The 36 tasks of MMEB: what they are, without data, models or the network."""

from mmeb.tasks.prompt import PLACEHOLDER, Prompt
from mmeb.tasks.registry import GROUP_TITLES, GROUPS, TASKS, TASKS_BY_NAME, get_task, get_tasks, task_order
from mmeb.tasks.task import PRIMARY_METRIC, MetaTask, Modality, Task

__all__ = [
    "GROUPS",
    "GROUP_TITLES",
    "PLACEHOLDER",
    "PRIMARY_METRIC",
    "TASKS",
    "TASKS_BY_NAME",
    "MetaTask",
    "Modality",
    "Prompt",
    "Task",
    "get_task",
    "get_tasks",
    "task_order",
]
