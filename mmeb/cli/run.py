"""`mmeb run`: score a model on tasks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmeb.cli.options import DATA, DATA_REVISION, model_options

if TYPE_CHECKING:
    from mmeb.results.schema import RunResult
    from mmeb.results.store import RunFolder
    from mmeb.tasks import Task

_EPILOG = "With the hub out of reach, `--data demo` scores on a small generated benchmark."


@click.command("run", epilog=_EPILOG)
@model_options
@click.option(
    "--tasks", default="all", show_default=True, help="all, ind, ood, a meta-task, names, globs, a .yaml file."
)
@DATA
@DATA_REVISION
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/<model>]")
@click.option("--batch-size", default="auto", show_default=True, help="A number of items, or auto.")
@click.option("--workers", type=int, help="Processes that decode and preprocess.  [default: by the cores]")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of each task: a quick look, no score.")
@click.option("--save-embeddings", is_flag=True, help="Write <task>.safetensors too.")
@click.option("--fresh", is_flag=True, help="Discard an earlier run in the output folder.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and stop before the weights are loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
def command(
    model: dict[str, Any],
    tasks: str,
    data: str,
    revision: str | None,
    output: Path | None,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Score a model on MMEB tasks.

    Results are on disk as soon as a task ends; the same command again resumes an interrupted run.
    """
    from mmeb.tasks import get_tasks

    selected_tasks = get_tasks(tasks)  # a typo is not worth the import of torch

    from mmeb.evaluation.evaluate import default_output, evaluate
    from mmeb.results.store import RunFolder

    folder = RunFolder(output or default_output(model["name"]))
    place: dict[str, Any] = {"revision": revision, "offline": model["offline"]}
    if dry_run:
        click.echo(_plan(model, selected_tasks, data, place, folder))
        return

    from mmeb.models.loading import load_model
    from mmeb.results.summary import run_table
    from mmeb.runtime.processes import joined, main_process_speaks, own_device

    with joined() as processes, main_process_speaks(processes), processes.failing_together():
        if processes.is_main and not fresh:
            model["revision"] = model["revision"] or folder.recorded_model_revision(model["name"])
        model["revision"] = processes.broadcast(model["revision"])
        model["device"] = own_device(processes, model["device"], model["device_map"])
        with processes.local_main_first():
            loaded = load_model(**model)
        result = evaluate(loaded, selected_tasks, data, folder.path, fresh=fresh, progress=True, **place, **settings)
        if as_json:
            click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
            return
        click.echo(run_table(result))
        click.echo(f"\n{_times(result)}\nResults: {folder.path}")


def _plan(model: dict[str, Any], tasks: list["Task"], data: str, place: dict[str, Any], folder: "RunFolder") -> str:
    """The model, the folder, and for each task its rows, unique items and whether it is done already."""
    from tabulate import tabulate

    from mmeb.data.dataset import load_eval
    from mmeb.data.source import open_source
    from mmeb.models.registry import find_entry

    entry = find_entry(model["name"], model["adapter"])
    source = open_source(data, **place)
    rows = []
    for task in tasks:
        dataset = load_eval(task, source)
        state = "done" if folder.read_task(task.name) else "to do"
        rows.append((task.name, dataset.n_rows, len(dataset.queries), len(dataset.candidates), state))
    described = source.describe()
    revision = f" @ {described.revision}" if described.revision else ""
    lines = [
        f"model   {entry.name} ({entry.adapter}: {entry.source})",
        f"data    {described.kind}: {described.repository}{revision}",
        f"output  {folder.path}",
        "",
        tabulate(rows, headers=("task", "rows", "unique queries", "unique candidates", "state")),
    ]
    return "\n".join(lines)


def _times(result: "RunResult") -> str:
    """Where the time went, summed over the tasks; workers preprocess while the model runs."""
    parts = {"data": "data", "preprocess": "preprocessing in workers", "forward": "forward passes", "rank": "ranking"}
    seconds = [task.provenance["seconds"] for task in result.tasks.values()]
    return "Seconds: " + ", ".join(f"{name} {sum(each[part] for each in seconds):.1f}" for part, name in parts.items())
