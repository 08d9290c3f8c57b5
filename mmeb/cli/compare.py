"""`mmeb compare`: compare runs, task by task."""

import json
from pathlib import Path

import click


@click.command("compare")
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option("--published", multiple=True, metavar="NAME", help="Compare with a published table; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--markdown", is_flag=True, help="Print a table for a pull request.")
def command(results: tuple[Path, ...], published: tuple[str, ...], as_json: bool, markdown: bool) -> None:
    """Compare runs, task by task, and say which differences are real.

    RESULTS are run folders, results.json files or submissions; each is compared with the first one, or with the
    published table where one is named.
    """
    from dataclasses import asdict

    from mmeb.compare.compare import compare
    from mmeb.compare.sides import load_sides
    from mmeb.compare.table import comparison_text
    from mmeb.errors import MmebError

    if as_json and markdown:
        raise MmebError("Choose --json or --markdown, not both.")
    sides = load_sides(results, published)
    if len(sides) < 2:
        raise MmebError("Name two results or more to compare, or one and --published NAME.")
    comparisons = [compare(sides[0], side) for side in sides[1:]]
    if as_json:
        content = [asdict(comparison) for comparison in comparisons]
        click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))
        return
    click.echo(comparison_text(comparisons, markdown=markdown))
