"""The 36 tasks in the benchmark's canonical order, the groups it averages over, and how a user names some of them."""

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmeb.errors import MmebError
from mmeb.inputs import suggest
from mmeb.tasks import classification, grounding, retrieval, vqa
from mmeb.tasks.task import MetaTask, Task

TASKS: tuple[Task, ...] = classification.TASKS + vqa.TASKS + retrieval.TASKS + grounding.TASKS

TASKS_BY_NAME: Mapping[str, Task] = {task.name: task for task in TASKS}

GROUPS: Mapping[str, tuple[Task, ...]] = {
    "overall": TASKS,
    "ind": tuple(task for task in TASKS if task.in_distribution),
    "ood": tuple(task for task in TASKS if not task.in_distribution),
    **{meta.value: tuple(task for task in TASKS if task.meta_task is meta) for meta in MetaTask},
}
"""The seven groups, in the order of every table: 36, 20, 16, 10, 10, 12 and 4 tasks."""

GROUP_TITLES: Mapping[str, str] = {
    "overall": "Overall",
    "ind": "IND",
    "ood": "OOD",
    "classification": "Classification",
    "vqa": "VQA",
    "retrieval": "Retrieval",
    "grounding": "Grounding",
}

_POSITIONS = {name: position for position, name in enumerate(TASKS_BY_NAME)}
_SELECTIONS: Mapping[str, tuple[Task, ...]] = {"all": TASKS, **GROUPS}


def task_order(name: str) -> int:
    """Sort key for names of tasks: the benchmark's in canonical order, all others behind them."""
    return _POSITIONS.get(name, len(_POSITIONS))


def get_task(name: str) -> Task:
    """The benchmark's task of this name (or of its MMEB-train spelling, `ImageNet_1K`)."""
    tasks = _match(name)
    if len(tasks) > 1:
        raise MmebError(f"{name!r} names several tasks, not one.")
    return tasks[0]


def get_tasks(names: str | Task | Iterable[str | Task]) -> list[Task]:
    """Resolve task names to tasks, each once, in canonical order; custom tasks come last.

    `names` may be `all`, `ind`, `ood`, a meta-task, a task's name, a glob, the `.yaml` file of a custom task, a comma
    list of these, a Task, or an iterable of them. Raises MmebError for a name that matches nothing, and for two
    different tasks of one name.
    """
    tasks: dict[str, Task] = {}
    for entry in [names] if isinstance(names, str | Task) else names:
        matches = [entry] if isinstance(entry, Task) else [task for name in _split(entry) for task in _match(name)]
        for task in matches:
            if tasks.setdefault(task.name, task) != task:
                raise MmebError(f"Two different tasks are called {task.name!r}: rename one of them in its task file.")
    if not tasks:
        raise MmebError("No task was named; `mmeb tasks` lists them.")
    return sorted(tasks.values(), key=lambda task: task_order(task.name))


def _split(names: str) -> list[str]:
    return [name for part in names.split(",") if (name := part.strip())]


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _match(name: str) -> tuple[Task, ...]:
    if Path(name).suffix in {".yaml", ".yml"}:
        from mmeb.tasks.custom import load_task  # needs a YAML parser, which `mmeb tasks` can do without

        custom = load_task(Path(name))
        if custom.name.lower() in {task.name.lower() for task in TASKS}:
            raise MmebError(f"{name}: {custom.name!r} is a task of the benchmark; give yours another name.")
        return (custom,)
    if name.lower() in _SELECTIONS:
        return _SELECTIONS[name.lower()]
    if name in TASKS_BY_NAME:
        return (TASKS_BY_NAME[name],)
    if _is_pattern(name):
        if matches := tuple(task for task in TASKS if fnmatch.fnmatch(task.name.lower(), name.lower())):
            return matches
    elif matches := tuple(task for task in TASKS if task.name.lower() == name.lower() or task.train_subset == name):
        return matches
    hint = suggest(name, (*_SELECTIONS, *TASKS_BY_NAME), n=3, cutoff=0.5) or "`mmeb tasks` lists them all."
    raise MmebError(f"There is no task {name!r}: {hint}")
