"""Peak memory of one training step against the global batch, with GradCache and without.

Each point is a process of its own that prepares a batch of pairs (a photograph, a text) and takes one step of AdamW
over all weights in float32: with GradCache in micro-batches of a fixed size, and without, the full batch's graph kept.
`inputs GiB` is what the batch itself takes, its preprocessed pixels above all, which grow with the batch in both; with
GradCache they are kept for the second forward pass up to a bound, and prepared again beyond.

    python -m benchmarks.training.memory [--batches 16,64,256,1024] [--json FILE]
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import torch
from accelerate import Accelerator

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import watch
from benchmarks.support.training_pairs import first_step, input_bytes, recipe_of, start, write_model, write_pairs
from mmeb.training.batch import MicroBatch
from mmeb.training.step import Embedder, contrastive_step

MODELS = ("clip/tiny", "demo-vlm")


def take_step(adapter: str, model: Path, pairs: Path, batch_size: int, micro_batch_size: int | None) -> None:
    recipe = recipe_of(adapter, model, batch_size, micro_batch_size)
    embedding_model, subsets = start(recipe, pairs)
    embedder = Embedder(embedding_model).train()
    optimizer = torch.optim.AdamW(embedder.parameters(), recipe.learning_rate)
    step = first_step(embedding_model, subsets, recipe)
    first_pass, sizes = step.first_pass, []

    def weighed() -> Iterator[list[MicroBatch]]:
        for micro_batches in first_pass():
            sizes.append(input_bytes(micro_batches))
            yield micro_batches

    step.first_pass = weighed  # type: ignore[method-assign]
    started = time.perf_counter()
    contrastive_step(embedder, step, recipe, Accelerator(cpu=True))
    optimizer.step()
    print(json.dumps({"seconds": time.perf_counter() - started, "inputs": sum(sizes)}))


@click.command(help=__doc__)
@json_option
@click.option("--batches", default="16,64,256,1024", show_default=True, help="Pairs in a batch.")
@click.option("--micro-batches", default="16,0", show_default=True, help="Items in one; 0 is without GradCache.")
@click.option("--models", default=",".join(MODELS), show_default=True)
@click.option("--run", nargs=5, type=(str, Path, Path, int, int), hidden=True)
def main(
    json_file: Path | None,
    batches: str,
    micro_batches: str,
    models: str,
    run: tuple[str, Path, Path, int, int] | None,
) -> None:
    if run is not None:
        adapter, folder, pairs, size, micro_batch = run
        take_step(adapter, folder, pairs, size, micro_batch or None)
        return
    sizes = [int(part) for part in batches.split(",")]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        pairs = write_pairs(Path(temporary), max(sizes))
        for name in models.split(","):
            adapter, folder = write_model(Path(temporary), name)
            for micro_batch in map(int, micro_batches.split(",")):
                for size in sizes:
                    watched = watch("benchmarks.training.memory", adapter, folder, pairs, size, micro_batch)
                    said = json.loads(watched.output.splitlines()[-1])
                    inputs = said["inputs"] / 2**30
                    rows.append(
                        {
                            "model": name,
                            "GradCache": f"micro-batches of {micro_batch}" if micro_batch else "off",
                            "batch": size,
                            "peak GiB": watched.gib,
                            "inputs GiB": inputs,
                            "peak less inputs GiB": watched.gib - inputs,
                            "step s": said["seconds"],
                        }
                    )
    show(rows, json_file)


if __name__ == "__main__":
    main()
