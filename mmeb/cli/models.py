"""`mmeb models`: the registered models, and the input of each."""

import dataclasses
import json
from typing import Any

import click
from tabulate import tabulate

from mmeb.cli.options import ADAPTER, ADAPTER_OPTIONS, DATA, OFFLINE
from mmeb.models.entries import DEFAULT_REVISIONS, ModelEntry
from mmeb.models.registry import find_entry, list_entries


@click.group("models", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="A list of objects, for programs.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the registered models, or show one; any hub id or folder does as well, with --adapter."""
    if context.invoked_subcommand is not None:
        return
    entries = list_entries()
    if as_json:
        click.echo(json.dumps([_to_json(entry) for entry in entries], indent=2))
        return
    rows = [(entry.name, entry.adapter, entry.size_b, entry.source) for entry in entries]
    click.echo(tabulate(rows, headers=("model", "adapter", "B parameters", "checkpoint"), floatfmt=".3g"))


@command.command("show")
@click.argument("name")
@click.option("--task", help="Show the model input for this task's first row.")
@DATA
@ADAPTER
@ADAPTER_OPTIONS
@OFFLINE
@click.option("--json", "as_json", is_flag=True, help="An object, for programs.")
def show_command(
    name: str, task: str | None, data: str, adapter: str | None, options: dict[str, str], offline: bool, as_json: bool
) -> None:
    """Show a model: its checkpoint, its options, and its input for each pair of modalities, or for a task's row."""
    entry = find_entry(name, adapter)
    effective = {**entry.options, **options}
    shown: dict[str, Any] = _to_json(entry) | {"options": effective}
    if task is not None:
        shown |= {"task": task, **_inputs(name, task, data, adapter, options, offline)}
    elif entry.adapter:  # a hub id's and a folder's is known once its configuration is there
        from mmeb.models.registry import adapter_class
        from mmeb.models.rendering import model_inputs

        shown["prompts"] = [dataclasses.asdict(pair) for pair in model_inputs(adapter_class(entry.adapter), effective)]
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    facts = [(key, _cell(value)) for key, value in shown.items() if key not in ("fed", "prompts")]
    click.echo(tabulate(facts, tablefmt="plain"))
    for pair in shown.get("prompts", []):
        click.echo(f"\n{pair['pair']}  ({', '.join(pair['tasks'])})")
        for role in ("query", "candidate"):
            click.echo(f"  {role:9}  {pair[role]}".replace("\n", "\\n"))
    if task is None:
        click.echo("\n--task WebQA, or any other, shows the model input for a real row, with its tokens.")
    for row in shown.get("fed", []):
        click.echo(f"\n{row['role']} ({row['modality']}, {row['tokens']} tokens)")
        click.echo("\n".join(f"  | {line}" for line in row["fed"].split("\n")))


def _inputs(
    name: str, task: str, data: str, adapter: str | None, options: dict[str, str], offline: bool
) -> dict[str, Any]:
    """The model input for the query and the right candidate of a task's first row, and the model's provenance."""
    from mmeb.data.dataset import load_eval
    from mmeb.data.source import open_source
    from mmeb.models.loading import load_model
    from mmeb.tasks import get_task

    dataset = load_eval(get_task(task), open_source(data, offline=offline))
    model = load_model(name, adapter=adapter, device="cpu", options=options, offline=offline, meta=True)
    items = dataset.queries[dataset.query_ids[0]], dataset.candidates[dataset.candidate_ids[0, 0]]
    rows = [
        {
            "role": str(item.role),
            "modality": str(item.modality),
            "prompt": item.prompt,
            "fed": model.rendered(item),
            "tokens": model.n_tokens(item),
        }
        for item in items
    ]
    return {"provenance": model.provenance, "fed": rows}


def _to_json(entry: ModelEntry) -> dict[str, Any]:
    shown = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry) if field.name != "folder"}
    revision = entry.revision or DEFAULT_REVISIONS.get(entry.source)
    return {**shown, "options": dict(entry.options), "revision": revision, "url": entry.url}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}={inner}" for key, inner in value.items())
    return "" if value is None else "\n".join(line.strip() for line in str(value).splitlines())
