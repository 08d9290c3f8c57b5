"""`mmeb run`: score a model on tasks."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmeb.cli.options import model_options, parse_options

if TYPE_CHECKING:
    from mmeb.results.schema import RunResult

_EPILOG = "With the hub out of reach, `--data demo` scores on a small generated benchmark."


@click.command("run", epilog=_EPILOG)
@model_options
@click.option(
    "--tasks", default="all", show_default=True, help="all, ind, ood, a meta-task, names, globs, a .yaml file."
)
@click.option("--data", default="hub", show_default=True, help="hub, instruct, demo, or a folder.")
@click.option("--revision", help="Commit or branch of the data repository; by default the published one.")
@click.option("--output", type=click.Path(path_type=Path), help="The run's folder.  [default: runs/<model>]")
@click.option("--batch-size", default="auto", show_default=True, help="A number of items, or auto.")
@click.option("--workers", type=int, help="Processes that decode and preprocess.  [default: by the cores]")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows of each task: a quick look, no score.")
@click.option("--save-embeddings", is_flag=True, help="Write <task>.safetensors too.")
@click.option("--fresh", is_flag=True, help="Discard an earlier run in the output folder.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and stop before the weights are loaded.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON instead of the table.")
def command(
    model: str,
    adapter: str | None,
    model_revision: str | None,
    device: str | None,
    device_map: str | None,
    dtype: str | None,
    option: tuple[str, ...],
    offline: bool,
    tasks: str,
    data: str,
    revision: str | None,
    output: Path | None,
    batch_size: str,
    workers: int | None,
    limit: int | None,
    save_embeddings: bool,
    fresh: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Score a model on MMEB tasks.

    Results are on disk as soon as a task ends; the same command again resumes an interrupted run.
    """
    from mmeb.tasks import get_tasks

    selected_tasks = get_tasks(tasks)
    options = parse_options(option)
    if dry_run:
        from mmeb.cli.dry_run import describe

        click.echo(describe(model, adapter, selected_tasks, data, revision, offline, output))
        return

    from mmeb.evaluation.evaluate import default_output, evaluate
    from mmeb.models.loading import load_model
    from mmeb.results.store import RunFolder
    from mmeb.results.summary import run_table
    from mmeb.runtime.processes import joined, main_process_speaks, own_device

    folder = RunFolder(output or default_output(model))
    with joined() as processes, main_process_speaks(processes), processes.failing_together():
        if processes.is_main and not fresh:
            model_revision = model_revision or folder.recorded_model_revision(model)
        model_revision = processes.broadcast(model_revision)
        own = own_device(processes, device, device_map)
        with processes.local_main_first():
            loaded = load_model(
                model,
                adapter=adapter,
                device=own,
                device_map=device_map,
                dtype=dtype,
                options=options,
                revision=model_revision,
                offline=offline,
            )
        result = evaluate(
            loaded,
            selected_tasks,
            data,
            folder.path,
            revision=revision,
            offline=offline,
            limit=limit,
            batch_size=batch_size,
            workers=workers,
            save_embeddings=save_embeddings,
            fresh=fresh,
            progress=True,
        )
        if as_json:
            click.echo(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
            return
        click.echo(run_table(result))
        click.echo(f"\n{_times(result)}\nResults: {folder.path}")


def _times(result: "RunResult") -> str:
    """Where the time went, summed over the tasks; workers preprocess while the model runs."""
    parts = {"data": "data", "preprocess": "preprocessing in workers", "forward": "forward passes", "rank": "ranking"}
    seconds = [task.provenance["seconds"] for task in result.tasks.values()]
    return "Seconds: " + ", ".join(f"{name} {sum(each[part] for each in seconds):.1f}" for part, name in parts.items())
