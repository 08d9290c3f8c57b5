"""The 36 tasks in the benchmark's canonical order, and how a user names some of them."""

import difflib
import fnmatch
from collections.abc import Iterable
from pathlib import Path

from mmeb.errors import MmebError
from mmeb.tasks import classification, grounding, retrieval, vqa
from mmeb.tasks.task import MetaTask, Task

TASKS: tuple[Task, ...] = classification.TASKS + vqa.TASKS + retrieval.TASKS + grounding.TASKS

_BY_NAME = {task.name: task for task in TASKS}
_GROUPS: dict[str, tuple[Task, ...]] = {
    "all": TASKS,
    "ind": tuple(task for task in TASKS if task.in_distribution),
    "ood": tuple(task for task in TASKS if not task.in_distribution),
    **{meta.value: tuple(task for task in TASKS if task.meta_task is meta) for meta in MetaTask},
}


def get_task(name: str) -> Task:
    """The benchmark's task of this name (or of its MMEB-train spelling, `ImageNet_1K`)."""
    (task,) = _match(name) if not _is_pattern(name) and name not in _GROUPS else (None,)
    if task is None:
        raise MmebError(f"{name!r} names several tasks, not one.")
    return task


def get_tasks(names: str | Task | Iterable[str | Task]) -> list[Task]:
    """Resolve task names to tasks, each once, in canonical order; a user's own tasks come last.

    `names` may be `all`, `ind`, `ood`, a meta-task, a task's name, a glob, a `.yaml` file of one's own task, a comma
    list of these, a Task, or an iterable of them. Raises MmebError for a name that matches nothing.
    """
    chosen: dict[str, Task] = {}
    for entry in [names] if isinstance(names, str | Task) else names:
        if isinstance(entry, Task):
            chosen[entry.name] = entry
            continue
        for name in filter(None, (part.strip() for part in entry.split(","))):
            chosen.update((task.name, task) for task in _match(name))
    if not chosen:
        raise MmebError("No task was named; `mmeb tasks` lists them.")
    order = {name: position for position, name in enumerate(_BY_NAME)}
    return sorted(chosen.values(), key=lambda task: order.get(task.name, len(order)))


def _is_pattern(name: str) -> bool:
    return any(character in name for character in "*?[")


def _match(name: str) -> tuple[Task, ...]:
    if Path(name).suffix in {".yaml", ".yml"}:
        from mmeb.tasks.custom import load_task  # needs a YAML parser, which `mmeb tasks` can do without

        own = load_task(Path(name))
        if own.name.lower() in {task.name.lower() for task in TASKS}:
            raise MmebError(f"{name}: {own.name!r} is a task of the benchmark; give yours another name.")
        return (own,)
    if name.lower() in _GROUPS:
        return _GROUPS[name.lower()]
    if name in _BY_NAME:
        return (_BY_NAME[name],)
    if _is_pattern(name):
        if matches := tuple(task for task in TASKS if fnmatch.fnmatch(task.name.lower(), name.lower())):
            return matches
    elif matches := tuple(task for task in TASKS if task.name.lower() == name.lower() or task.train_subset == name):
        return matches
    known = {known.lower(): known for known in (*_GROUPS, *_BY_NAME)}
    near = [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else "`mmeb tasks` lists them all."
    raise MmebError(f"There is no task {name!r}: {hint}")
