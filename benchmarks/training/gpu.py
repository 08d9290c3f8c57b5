"""Phi-3.5-V at its full size on a GPU: LoRA, GradCache and a global batch of 256 pairs, by the size of a micro-batch.

Random weights in bf16, under the recipe `phi35v` (DoRA of rank 8, the tower included, gradient checkpointing): pairs of
a photograph with a question and a text. Items per second are those of whole steps, images read and decoded in worker
processes, the first step left out; the peak is what the device had allocated. A micro-batch that does not fit
is said to.

    python -m benchmarks.training.gpu [--json FILE]     # one GPU with 24 GB or more; writes a checkpoint of 8 GB
    python -m benchmarks.training.gpu --tiny            # a tiny checkpoint on the CPU: does it work?
"""

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import peak_gib, reset_peak
from benchmarks.support.phi3_v import TINY, write_checkpoint
from benchmarks.support.training_pairs import save_nothing, write_pairs
from mmeb.data.train.dataset import TrainSubset, open_train
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.training.loop import train
from mmeb.training.recipe import Recipe, RunSettings, find_recipe
from mmeb.training.start import start_model


def measure(
    model: EmbeddingModel, subsets: list[TrainSubset], recipe: Recipe, output: Path, workers: int | None
) -> dict[str, Any]:
    """A row: rates and memory of a run by this recipe."""
    reset_peak(model.device)
    settings = RunSettings(output, log_every=1, save_every=None, workers=workers, progress=False)
    row = {"tokens in a micro-batch": recipe.micro_batch_tokens, "batch": recipe.batch_size}
    try:
        outcome = train(model, subsets, recipe, settings, save_nothing)
    except MmebError as error:
        return {**row, "note": str(error)}
    measured = outcome.log[1:]
    rates = {
        f"{name}/s": statistics.median(line[f"{name}_per_second"] for line in measured) for name in ("items", "tokens")
    }
    return {**row, **rates, "peak GiB": peak_gib(model.device)}


@click.command(help=__doc__)
@json_option
@click.option("--device", default="cuda", show_default=True)
@click.option("--batch-size", default=256, show_default=True, help="Pairs in a batch.")
@click.option(
    "--tokens", default="2048,4096,8192,16384,32768,65536", show_default=True, help="Tokens in a micro-batch."
)
@click.option("--steps", default=2, show_default=True, help="Steps that are measured.")
@click.option("--workers", type=int, help="Processes that prepare batches.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the checkpoint is kept, for a second run.")
@click.option("--tiny", is_flag=True, help="A tiny checkpoint on the CPU.")
def main(
    json_file: Path | None,
    device: str,
    batch_size: int,
    tokens: str,
    steps: int,
    workers: int | None,
    folder: Path | None,
    tiny: bool,
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        pairs = write_pairs(Path(temporary), batch_size)
        path = TINY if tiny else write_checkpoint(folder or Path(temporary, "checkpoint"))
        device = "cpu" if tiny else device
        recipe = replace(
            find_recipe("phi35v").recipe, model=str(path), batch_size=batch_size, steps=steps + 1, warmup_steps=0
        )
        model, recipe, trainable = start_model(recipe, device=device, offline=True)
        click.echo(str(trainable))
        subsets = open_train(pairs)
        rows = [
            measure(model, subsets, replace(recipe, micro_batch_tokens=limit), Path(temporary, f"run-{limit}"), workers)
            for limit in map(int, tokens.split(","))
        ]
    show(rows, json_file)


if __name__ == "__main__":
    main()
