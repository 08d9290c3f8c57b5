"""The `mmeb` command: one file per subcommand, imported when it is called."""

import importlib
import io
import os
import sys
from typing import Any

import click

from mmeb.errors import MmebError
from mmeb.inputs import suggest

_COMMANDS = {
    "run": "Score a model on tasks.",
    "tasks": "List the 36 tasks.",
    "models": "List the registered models, or show one.",
    "data": "Download, check or make the data.",
    "train": "Fine-tune a model.",
    "verify": "Prove that a model embeds as it should.",
    "compare": "Compare runs, task by task.",
    "check": "Guard a run's scores against a baseline.",
    "report": "Look into a run's failures.",
    "leaderboard": "Submit, validate and tabulate results.",
}


class _LazyGroup(click.Group):
    """A group whose commands live in `mmeb.cli.<name>` as `command` and are imported only when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            if hint := suggest(cmd_name, _COMMANDS):
                ctx.fail(f"No such command {cmd_name!r}: {hint}")
            return None
        command: click.Command = importlib.import_module(f"mmeb.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mmeb")
def cli() -> None:
    """Score, train and publish multimodal embedding models on MMEB."""


def main(*args: Any, **kwargs: Any) -> None:
    """Entry point: a mistake of the user is one plain sentence on stderr and exit code 2."""
    # Threads that wait by spinning would take the cores from the workers that decode images; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 shows what it can
    try:
        cli(*args, **kwargs)
    except MmebError as error:
        from mmeb.results.text import plain  # names from files may hold characters that steer a terminal

        click.echo("\n".join(plain(line) for line in f"Error: {error}".splitlines()), err=True)
        sys.exit(error.exit_code)
