"""`mmeb tasks`: what the 36 tasks are."""

import json

import click
from tabulate import tabulate

from mmeb.tasks import get_tasks

_FIELDS = (
    *("name", "meta_task", "in_distribution", "query", "target", "train_subset"),
    *("query_instruction", "target_instruction", "primary_metric"),
)


@click.command("tasks")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, for programs.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List tasks: all of them, or those that NAMES match (all, ind, ood, a meta-task, a name, a glob)."""
    tasks = get_tasks(names or "all")
    if as_json:
        click.echo(json.dumps([{name: getattr(task, name) for name in _FIELDS} for task in tasks], indent=2))
        return
    table = [
        (task.name, task.meta_task, "IND" if task.in_distribution else "OOD", f"{task.query} → {task.target}")
        for task in tasks
    ]
    click.echo(tabulate(table, headers=("task", "meta-task", "split", "query → target")))
