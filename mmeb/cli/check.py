"""`mmeb check`: guard a run's scores against a baseline."""

import sys
from pathlib import Path

import click


@click.command("check")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--baseline", required=True, type=click.Path(path_type=Path), help="A run folder or result file.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Points of the overall mean that may be lost.",
)
@click.option(
    "--task-tolerance",
    type=click.FloatRange(min=0),
    default=1.5,
    show_default=True,
    help="Points that a task may lose, real or not.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Level of the tests of the tasks, after correction for their number.",
)
@click.option("--junit", "junit_path", type=click.Path(path_type=Path), help="Write the verdict as JUnit XML.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub's workflows.")
@click.option("--update", is_flag=True, help="Make RUN the new baseline instead of checking it.")
def command(run: Path, baseline: Path, junit_path: Path | None, github: bool, update: bool, **rule: float) -> None:
    """Guard a run's scores against a baseline.

    Exit code 0: no loss beyond the noise of repeated runs; 1: scores fell; 2: the two can't be compared.
    """
    from mmeb.compare.check import Rule, check, github_annotations, junit, verdict_text, write_baseline
    from mmeb.compare.sides import load_sides
    from mmeb.files import write_text

    if update:
        write_baseline(run, baseline)
        click.echo(f"{baseline} holds the scores of {run} now.")
        return
    against, checked = load_sides([baseline, run])
    verdict = check(against, checked, Rule(**rule))
    if junit_path is not None:
        write_text(junit_path, junit(verdict))
    if github:
        for line in github_annotations(verdict):
            click.echo(line)
    click.echo(verdict_text(verdict))
    if not verdict.passed:
        sys.exit(1)
