"""`mmeb data`: download, check or make the data."""

import json
from pathlib import Path

import click

from mmeb.errors import MmebError
from mmeb.tasks import get_tasks

_JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
_TASKS = click.option(
    "--tasks",
    "names",
    multiple=True,
    default=("all",),
    help="all, ind, ood, a meta-task, names, globs.  [default: all]",
)
_REVISION = click.option("--revision", help="Commit or branch of the data repository; by default the published one.")


@click.group("data")
def command() -> None:
    """Download, check or make the data."""


@command.command("download")
@click.option("--data", type=click.Choice(["hub", "instruct"]), default="hub", show_default=True)
@_TASKS
@click.option("--output", type=click.Path(path_type=Path), help="A folder.  [default: the hub's own cache]")
@_REVISION
@click.option("--offline", is_flag=True, help="Only look whether all is there; let no call leave the machine.")
@_JSON
def download_command(
    data: str, names: tuple[str, ...], output: Path | None, revision: str | None, offline: bool, as_json: bool
) -> None:
    """Fetch the rows of some tasks, and the images; what broke off is resumed."""
    from mmeb.data.download import download

    paths = download(data, get_tasks(names), output=output, revision=revision, offline=offline)
    if as_json:
        click.echo(json.dumps([str(path) for path in paths], indent=2))
    else:
        click.echo(f"{len(paths)} files are there: {paths[-1]} and rows. Use them with --data {output or data}.")


@command.command("verify")
@click.option("--data", default="hub", show_default=True, help="hub, instruct, demo, or a folder.")
@_TASKS
@click.option("--decode", is_flag=True, help="Open every image, too.")
@_REVISION
@_JSON
def verify_command(data: str, names: tuple[str, ...], decode: bool, revision: str | None, as_json: bool) -> None:
    """Check that every image is there; exits with 1 where something is missing. Fetches nothing."""
    from dataclasses import asdict

    from tabulate import tabulate

    from mmeb.data.sources import open_source
    from mmeb.data.verify import verify

    source = open_source(data, revision=revision, offline=True)
    reports = [verify(task, source, decode=decode) for task in get_tasks(names)]
    if as_json:
        click.echo(json.dumps([{**asdict(report), "is_whole": report.is_whole} for report in reports], indent=2))
    else:
        headers = ("task", "rows", "candidates", "images", "missing", "broken", "duplicates", "GT copies")
        table = [
            (
                report.task,
                report.rows,
                "–".join(str(count) for count in dict.fromkeys(report.candidates)),
                report.images,
                len(report.missing),
                len(report.broken) if decode else "",
                report.duplicates,
                report.copies,
            )
            for report in reports
        ]
        click.echo(tabulate(table, headers=headers))
        for report in reports:
            for sentence in (report.error, *report.missing, *report.broken):
                if sentence:
                    click.echo(f"{report.task}: {sentence}")
    if not all(report.is_whole for report in reports):
        raise click.exceptions.Exit(1)


@command.command("demo")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder, for --data.")
@click.option("--seed", type=int, default=0, show_default=True)
def demo_command(output: Path, seed: int) -> None:
    """Write a small benchmark of our own, in the official layout."""
    from mmeb.data.demo import write_demo

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise MmebError(f"{output} is there already and not an empty folder: choose another --output.")
    write_demo(output, seed=seed)
    click.echo(f"The demo is in {output}. Use it with --data {output}.")
