"""`mmeb data`: download, check or generate data."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from tabulate import tabulate

from mmeb.cli.options import DATA, DATA_REVISION, OFFLINE
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
_SUBSETS = click.option(
    "--subsets", multiple=True, default=("all",), help="Training subsets, by commas.  [default: all]"
)
_SPLIT = click.option(
    "--split", default="original", show_default=True, help="Of MMEB-train: original or diverse_instruction."
)
_WORKERS = click.option("--workers", type=click.IntRange(min=0), help="Processes.  [default: one per core]")

_SHOWN = 20  # pairs that `leakage` prints


@click.group("data")
def command() -> None:
    """Download, check or generate data."""


@command.command("download")
@click.option("--data", type=click.Choice(["hub", "instruct"]), default="hub", show_default=True)
@_TASKS
@click.option("--train", "subsets", multiple=True, help="Training subsets instead of tasks: all, or names by commas.")
@_SPLIT
@click.option("--output", type=click.Path(path_type=Path), help="A folder.  [default: the hub's cache]")
@DATA_REVISION
@click.option("--offline", is_flag=True, help="Only check that everything is there; let no call leave the machine.")
@_JSON
def download_command(
    data: str,
    names: tuple[str, ...],
    subsets: tuple[str, ...],
    split: str,
    output: Path | None,
    revision: str | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Download the rows and images of some tasks or training subsets; an interrupted download is resumed."""
    from mmeb.data.download import download, download_train

    if subsets and data != "hub":
        raise MmebError("Only hub has training data: leave --data out.")
    if subsets:
        paths = download_train(subsets, split=split, output=output, revision=revision, offline=offline)
    else:
        paths = download(data, get_tasks(names), output=output, revision=revision, offline=offline)
    if as_json:
        click.echo(json.dumps([str(path) for path in paths], indent=2))
    else:
        click.echo(f"{len(paths)} files are there: {paths[-1]} and rows. Use them with --data {output or data}.")


@command.command("verify")
@DATA
@_TASKS
@click.option("--decode", is_flag=True, help="Open every image as well.")
@DATA_REVISION
@_JSON
def verify_command(data: str, names: tuple[str, ...], decode: bool, revision: str | None, as_json: bool) -> None:
    """Check evaluation data: every image is there. Exits with 1 where something is missing; downloads nothing."""
    from mmeb.data.checks.verify import verify
    from mmeb.data.source import open_source

    source = open_source(data, revision=revision, offline=True)
    reports = [verify(task, source, decode=decode) for task in get_tasks(names)]
    if as_json:
        click.echo(json.dumps([{**asdict(report), "is_whole": report.is_complete} for report in reports], indent=2))
    else:
        headers = ("task", "rows", "candidates", "images", "missing", "broken", "duplicates", "GT copies")
        table = [
            (
                report.task,
                report.rows,
                _span(report.candidates),
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
    if not all(report.is_complete for report in reports):
        sys.exit(1)


@command.command("validate")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@_SUBSETS
@_SPLIT
@click.option("--sample", type=click.IntRange(min=0), help="Open so many images of each subset.  [default: all]")
@_WORKERS
@OFFLINE
@_JSON
def validate_command(
    data: tuple[str, ...],
    subsets: tuple[str, ...],
    split: str,
    sample: int | None,
    workers: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Check training data: .jsonl or .parquet files, a folder, demo or hub. Exits with 1 where there are errors."""
    from mmeb.data.checks.validate import validate
    from mmeb.data.part import Part
    from mmeb.data.train.subsets import check_split, open_train_sources, select_subsets

    check_split(split)
    sources = open_train_sources(",".join(data), offline=offline)
    reports = []
    for name, source in select_subsets(subsets, sources).items():
        source.fetch([Part.of_subset(name, split)])
        reports.append(validate(name, source, split=split, sample=sample, workers=workers, progress=True))
    if as_json:
        click.echo(json.dumps([asdict(report) for report in reports], indent=2))
    else:
        headers = ("subset", "rows", "query", "target", "positives", "negatives", "targets", "images", "opened")
        table = [
            (
                report.name,
                report.rows,
                *(", ".join(f"{kind} {count}" for kind, count in side) for side in (report.query, report.target)),
                _span(report.positives),
                _span(report.negatives),
                report.targets,
                report.images,
                report.decoded,
            )
            for report in reports
        ]
        click.echo(tabulate(table, headers=headers))
        for report in reports:
            for word, findings in (("error", report.errors), ("note", report.notes)):
                for finding in findings:
                    click.echo(f"{report.name}: {word}: {finding}")
    if any(report.errors for report in reports):
        sys.exit(1)


@command.command("leakage")
@click.option("--train", default="hub", show_default=True, help="Training data: hub, demo, a folder, or files.")
@click.option("--eval", "evaluation", default="hub", show_default=True, help="hub, instruct, demo, or a folder.")
@_SUBSETS
@_SPLIT
@_TASKS
@click.option("--exact", is_flag=True, help="Only the same bytes or pixels, no images that merely look the same.")
@click.option("--output", type=click.Path(path_type=Path), help="A .jsonl file for all pairs.")
@_WORKERS
@OFFLINE
@_JSON
def leakage_command(
    train: str,
    evaluation: str,
    subsets: tuple[str, ...],
    split: str,
    names: tuple[str, ...],
    exact: bool,
    output: Path | None,
    workers: int | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Check that no evaluation image is among the training images, by content. Exits with 1 where one is."""
    from mmeb.data.checks.leakage import Match, find_leakage
    from mmeb.data.source import open_source
    from mmeb.data.train.dataset import open_train
    from mmeb.files import write_text

    tasks = get_tasks(names)
    source = open_source(evaluation, offline=offline)
    data = open_train(train, subsets, split=split, offline=offline, skip_bad_rows=True)
    report = find_leakage(data, tasks, source, exact=exact, workers=workers, progress=True)
    if output is not None:
        write_text(output, "".join(json.dumps(asdict(leak)) + "\n" for leak in report.leaks))
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2))
    else:
        table = []
        for task, count in report.images.items():
            of_task = [leak for leak in report.leaks if leak.task == task]
            found = [len({leak.image for leak in of_task if leak.match is match}) for match in Match]
            where = ", ".join(sorted({leak.subset for leak in of_task}))
            table.append((task, count, *found, where))
        headers = ("task", "images", "same bytes", "same pixels", "look the same", "in")
        click.echo(tabulate(table, headers=headers))
        click.echo(f"{sum(report.images.values())} evaluation images, {report.train_images} training images.")
        for leak in report.leaks[:_SHOWN]:
            distance = f", {leak.bits} of 256 bits differ" if leak.match is Match.NEAR else ""
            click.echo(f"{leak.task}: {leak.image} and {leak.train_image} of {leak.subset}: {leak.match}{distance}")
        if len(report.leaks) > _SHOWN:
            click.echo(f"… and {len(report.leaks) - _SHOWN} more pairs; --output writes all of them.")
        for sentence in report.unreadable:
            click.echo(f"Not compared: {sentence}")
    if report.leaks:
        sys.exit(1)


@command.command("demo")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A new folder, for --data.")
@click.option("--seed", type=int, default=0, show_default=True)
def demo_command(output: Path, seed: int) -> None:
    """Write the demo, a small generated benchmark, in the official layout."""
    from mmeb.demo import write_demo

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise MmebError(f"{output} is there already and not an empty folder: choose another --output.")
    try:
        write_demo(output, seed=seed)
    except OSError as error:
        raise MmebError(f"The demo can't be written to {output}: {error.strerror or error}.") from None
    click.echo(f"The demo is in {output}. Use it with --data {output}.")


def _span(bounds: tuple[int, int]) -> str:
    """The least and the largest count: "2–5", or "2" where they are equal."""
    return "–".join(map(str, dict.fromkeys(bounds)))
