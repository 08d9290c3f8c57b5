"""`mmeb verify`: prove that a model embeds as it should."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from mmeb.cli.options import model_options

_FILE = click.Path(dir_okay=False, path_type=Path)
_EPILOG = "Exit code 0 where every check passes, 1 where one fails."


@click.command("verify", epilog=_EPILOG)
@model_options
@click.option("--reference", type=_FILE, help="Compare with vectors that --save-reference wrote.")
@click.option("--save-reference", type=_FILE, help="Write this model's vectors, if every check passes.")
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON.")
def command(model: dict[str, Any], reference: Path | None, save_reference: Path | None, as_json: bool) -> None:
    """Prove that a model embeds as it should, on twenty fixed items.

    An embedding must not depend on its neighbours in the batch, the batch size, the order or the padding; text and
    image must matter; with --reference, the vectors must be those of another day, library or machine.
    """
    from mmeb.evaluation.reference import load_reference
    from mmeb.evaluation.reference import save_reference as write_reference
    from mmeb.evaluation.verify import verify_model
    from mmeb.models.loading import load_model

    expected = load_reference(reference) if reference is not None else None
    loaded = load_model(**model)
    verdict = verify_model(loaded, expected)
    if as_json:
        click.echo(json.dumps(verdict.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo(verdict.table())
    if not verdict.passed:
        sys.exit(1)
    if save_reference is not None:
        write_reference(save_reference, loaded, verdict.vectors)
        click.echo(f"Reference: {save_reference}", err=as_json)
