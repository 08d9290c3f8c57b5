"""Phi-3.5-V at its full size with random weights: does it load, how long does it take, how much memory does it need?

    python -m benchmarks.evaluation.phi3_v_full_size [--device cuda] [--json FILE]

A checkpoint of 8 GB in the official format is written into a temporary folder first (`--folder` keeps it). How fast it
is on a GPU says benchmarks.evaluation.gpu.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import peak_gib, reset_peak
from benchmarks.support.phi3_v import TINY, items, load, write_checkpoint
from mmeb.data.item import Item


def measure(label: str, work: Callable[[], Any], device: torch.device) -> tuple[dict[str, Any], Any]:
    """A row, and what `work` returned."""
    reset_peak(device)
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = work()
    peak = peak_gib(device)
    row = {"seconds": time.perf_counter() - wall, "CPU seconds": time.process_time() - cpu, "peak GiB": peak}
    return {"what": label, **row}, outcome


@click.command(help=__doc__)
@json_option
@click.option("--device", default="cpu", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the checkpoint is kept, for a second run.")
@click.option("--tiny", is_flag=True, help="A tiny checkpoint: does it work?")
def main(json_file: Path | None, device: str, folder: Path | None, tiny: bool) -> None:
    place = torch.device(device)
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        path = TINY if tiny else write_checkpoint(folder or Path(temporary))
        row, model = measure("load", lambda: load(path, place, num_crops=4), place)
        rows = [row]
        for label, item in (("image with text", items(1)[0]), ("text", Item("What is beside the river?\n"))):
            batch = model.preprocess([item])
            row, vector = measure(label, partial(model.embed, batch.to(place)), place)
            rows.append({**row, "tokens": batch.tokens, "finite": bool(vector.isfinite().all())})
    show(rows, json_file)


if __name__ == "__main__":
    main()
