"""How a benchmark shows its figures: a table, and a JSON file that says which machine and libraries they are from."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import torch
from tabulate import tabulate

LIBRARIES = ("mmeb", "torch", "transformers", "numpy", "pillow", "pyarrow")
json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures here, too."
)


def show(
    rows: Sequence[Mapping[str, Any]],
    json_file: Path | None,
    *,
    peers: Sequence[str] = (),
    floatfmt: str = ".3f",
    numbers: bool = True,
    more: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Print rows of one benchmark as a table, and the machine below it; write both as JSON where a file is named.

    Without `numbers` cells are printed as they are. `more` are rows of a second kind, which the caller has printed.
    """
    where, cells = machine(peers), [dict(row) for row in rows]
    click.echo(tabulate(cells, headers="keys", tablefmt="github", floatfmt=floatfmt, disable_numparse=not numbers))
    click.echo("\n" + ", ".join(f"{name} {value}" for name, value in where.items()))
    if json_file is not None:
        text = json.dumps({"machine": where, "figures": [*cells, *map(dict, more)]}, indent=2, default=float)
        json_file.write_text(text + "\n", encoding="utf-8")


def machine(peers: Sequence[str] = ()) -> dict[str, str | int | float]:
    """What a figure depends on beside the code; a load above the benchmark's own processes means a disturbed run."""
    device = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        **device,
        "CPU": _processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "Python": platform.python_version(),
        **{name: version(name) for name in (*LIBRARIES, *peers)},
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
