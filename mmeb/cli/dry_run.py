"""What a run would do, before it loads a model's weights."""

from pathlib import Path

from tabulate import tabulate

from mmeb.data.dataset import load_eval
from mmeb.data.source import open_source
from mmeb.models.registry import find_entry
from mmeb.results.store import RunFolder
from mmeb.tasks import Task


def describe(
    model: str,
    adapter: str | None,
    tasks: list[Task],
    data: str,
    revision: str | None,
    offline: bool,
    output: Path | None,
) -> str:
    """The model, the folder, and for each task its rows, unique items and whether it is done already."""
    from mmeb.evaluation.evaluate import default_output

    entry = find_entry(model, adapter)
    folder = RunFolder(output or default_output(model))
    source = open_source(data, revision=revision, offline=offline)
    rows = []
    for task in tasks:
        dataset = load_eval(task, source)
        state = "done" if folder.read_task(task.name) else "to do"
        rows.append((task.name, dataset.n_rows, len(dataset.queries), len(dataset.candidates), state))
    described = source.describe()
    head = [
        f"model   {entry.name} ({entry.adapter}: {entry.source})",
        f"data    {described.kind}: {described.repository}"
        + (f" @ {described.revision}" if described.revision else ""),
        f"output  {folder.path}",
    ]
    table = tabulate(rows, headers=("task", "rows", "unique queries", "unique candidates", "state"))
    return "\n".join([*head, "", table])
