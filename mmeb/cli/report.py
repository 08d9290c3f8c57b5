"""`mmeb report`: look into a run's failures."""

from pathlib import Path

import click

from mmeb.cli.options import OFFLINE


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="Where the run's data is now.  [default: where the run took it from]")
@click.option("--tasks", help="Only these: ood, a meta-task, names, globs, a .yaml file.  [default: all that are done]")
@click.option("--examples", type=click.IntRange(min=0), default=20, show_default=True, help="Wrong queries a task.")
@click.option("--output", type=click.Path(path_type=Path), help="The page.  [default: report.html in the run folder]")
@OFFLINE
def command(run: Path, data: str | None, tasks: str | None, examples: int, output: Path | None, offline: bool) -> None:
    """Look into a run's failures.

    Writes one HTML page that needs nothing but itself: per task the score, the ranks, and what was retrieved in place
    of what was right, worst first.
    """
    from mmeb.report.page import write_report

    folder = run if run.is_dir() else run.parent
    output = output or folder / "report.html"
    missing = write_report(run, output, data=data, tasks=tasks, examples=examples, offline=offline, progress=True)
    if missing:
        click.echo(f"Not scored in this run, so not on the page: {', '.join(missing)}.", err=True)
    click.echo(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")
