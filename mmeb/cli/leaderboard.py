"""`mmeb leaderboard`: submit, validate and tabulate results."""

import sys
from pathlib import Path
from typing import Any

import click

RESULTS = Path("leaderboard/results")
OUTPUT = Path("leaderboard")


@click.group()
def command() -> None:
    """Submit, validate and tabulate results."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Folder of results."
)
@click.option("--name", "model_name", help="The model's name in the tables.")
@click.option("--size", "model_size", type=click.FloatRange(min=0, min_open=True), help="Billions of parameters.")
@click.option("--backbone", "model_backbone", help="What the model was made from.")
@click.option("--embedding-dimension", type=click.IntRange(min=1), help="Length of its vectors.")
@click.option("--max-length", "max_length_tokens", type=click.IntRange(min=1), help="Tokens it reads at most.")
@click.option("--release-date", "model_release_date", help="Such as 2025-04-01.")
@click.option("--url", help="Its paper, code or weights.")
@click.option("--public", is_flag=True, help="Add the entries that the public leaderboard wants for parts not run.")
@click.option("--partial", is_flag=True, help="Permit missing tasks; the tables show n/36 then.")
@click.option("--force", is_flag=True, help="Replace an earlier submission of the same model.")
def submit(run: Path, output: Path, public: bool, partial: bool, force: bool, **metadata: Any) -> None:
    """Turn a run folder, or scores in another layout, into a result file."""
    from mmeb.leaderboard.submission import submit as write_submission

    written = write_submission(run, output, metadata, public=public, partial=partial, force=force)
    click.echo(f"{written.path}" + (f" and {written.ranks}" if written.ranks else ""))
    for note in written.notes:
        click.echo(f"note: {note}", err=True)


@command.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True, help="Permit missing tasks.")
@click.option("--demo", is_flag=True, help="Permit demo results.")
def validate(files: tuple[Path, ...], partial: bool, demo: bool) -> None:
    """Check result files and say everything that is wrong, one line each.

    FILES are result files, run folders, or folders of <task>_score.json files. Exit code 0: all is well; 1: something
    is wrong in a file; 2: a file can't be read at all. A published figure whose averages contradict each other is
    flagged, which is no mistake in the file.
    """
    from mmeb.results.validation import check_files

    reports = check_files(files, partial=partial, demo=demo)
    for report in reports:
        for line in report.problems:
            click.echo(f"{report.path}: {line}")
        for line in report.flagged:
            click.echo(f"{report.path}: flagged, its source contradicts itself: {line}")
        if not report.problems:
            click.echo(f"{report.path}: ok, {report.summary}")
    sys.exit(max(report.exit_code for report in reports))


@command.command()
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS, show_default=True, help="Result files.")
@click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, show_default=True, help="Where to write.")
@click.option("--demo", is_flag=True, help="Take demo results, and them alone; everything says so.")
def build(results: Path, output: Path, demo: bool) -> None:
    """Write README.md, table.csv and index.html.

    RESULTS is a folder of result files, of run folders, or one run folder.
    """
    from mmeb.files import write_text
    from mmeb.leaderboard.board import load_board
    from mmeb.leaderboard.page import page
    from mmeb.leaderboard.tables import readme, table_csv

    board = load_board(results, demo=demo)
    for path in board.left_out:
        sort = "not a demo result" if demo else "a demo result, which never enters the tables (--demo builds its own)"
        click.echo(f"left out: {path} is {sort}", err=True)
    for entry in board.entries:
        for problem in entry.problems:
            click.echo(f"flagged: {entry.name}: {problem}", err=True)
    for name, write in {"README.md": readme, "table.csv": table_csv, "index.html": page}.items():
        write_text(output / name, write(board))
        click.echo(output / name)


@command.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write them as result files into this folder.")
def published(output: Path | None) -> None:
    """List the published results that the package carries."""
    from mmeb.results.published import load, write_all

    if output is None:
        for name, result in load().items():
            click.echo(f"{name} ({len(result.tasks)}/36 tasks; {result.provenance['published']['source']})")
    else:
        click.echo(f"{len(write_all(output))} files in {output}")
