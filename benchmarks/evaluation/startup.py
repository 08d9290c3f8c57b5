"""How long do commands take that only answer, against an interpreter that does nothing?

python -m benchmarks.evaluation.startup [--turns 20] [--json FILE]
"""

import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from benchmarks.support.figures import json_option, show
from benchmarks.support.timing import in_turns

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "mmeb --help": ["-m", "mmeb", "--help"],
    "mmeb tasks": ["-m", "mmeb", "tasks"],
    "mmeb models": ["-m", "mmeb", "models"],
}


@click.command(help=__doc__)
@json_option
@click.option("--turns", default=20, show_default=True)
def main(json_file: Path | None, turns: int) -> None:
    ways: dict[str, Callable[[], object]] = {
        name: partial(subprocess.run, [sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
        for name, arguments in COMMANDS.items()
    }
    medians = {name: statistics.median(taken) for name, taken in in_turns(ways, turns).items()}
    base = medians["python -c pass"]
    rows = [{"command": name, "seconds": took, "over python -c pass": took / base} for name, took in medians.items()]
    show(rows, json_file)


if __name__ == "__main__":
    main()
