"""What GradCache costs beside the passes through the model that it must make.

A step over one prepared batch, against a bare loop over the same micro-batches that knows the gradient already: a
forward pass without gradient, a forward pass with, a backward pass. `overhead` compares a step with the passes that it
makes itself (the last micro-batch goes through the model once only), `with two each` with two forward passes for every
micro-batch, as GradCache is usually written. Both take turns, and the median over the turns is shown.

    python -m benchmarks.training.grad_cache [--json FILE]
"""

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.support.figures import json_option, show
from benchmarks.support.timing import in_turns
from benchmarks.support.training_pairs import first_step, recipe_of, start, write_model, write_pairs
from mmeb.models.base import EmbeddingModel
from mmeb.training.batch import MicroBatch, Prepared, StepBatch
from mmeb.training.step import Embedder, contrastive_step

MODELS = ("clip/tiny", "clip/small", "demo-vlm", "qwen2-vl/small")


def bare_loop(model: EmbeddingModel, prepared: list[MicroBatch], gradient: Tensor, *, twice_each: bool) -> None:
    """The passes alone; `gradient` is (n_items, dim)."""
    model.module.zero_grad()
    inputs = [each.inputs for each in prepared if each.inputs is not None]
    with torch.no_grad():
        for batch in inputs if twice_each else inputs[:-1]:
            model.embed(batch)
    for each, batch in zip(prepared, inputs, strict=True):
        torch.autograd.backward(model.embed(batch), gradient[torch.from_numpy(each.positions)])


def measure(
    adapter: str, model: Path, pairs: Path, batch_size: int, micro_batch_size: int, turns: int
) -> dict[str, float]:
    recipe = recipe_of(adapter, model, batch_size, micro_batch_size)
    embedding_model, subsets = start(recipe, pairs)
    embedder, accelerator = Embedder(embedding_model).train(), Accelerator(cpu=True)
    step = first_step(embedding_model, subsets, recipe)
    plan, prepared = step.plan, [each for micro_batches in step.first_pass() for each in micro_batches]
    gradient = torch.randn(plan.pairing.n_items, embedding_model.dim)

    def take_step() -> None:
        inputs: Iterator[Prepared] = ((each.inputs, {}) for each in prepared if each.inputs is not None)
        contrastive_step(embedder, StepBatch(plan, inputs, lambda work: iter(())), recipe, accelerator)

    ways: dict[str, Callable[[], object]] = {
        "step s": take_step,
        "its passes s": lambda: bare_loop(embedding_model, prepared, gradient, twice_each=False),
        "two passes each s": lambda: bare_loop(embedding_model, prepared, gradient, twice_each=True),
    }
    taken = in_turns(ways, turns, warm_up=1)
    medians = {name: statistics.median(each) for name, each in taken.items()}
    ours, own, both = medians.values()
    return {
        "micro-batches": len(plan.passes),
        **medians,
        "overhead %": 100 * (ours / own - 1),
        "with two each %": 100 * (ours / both - 1),
    }


@click.command(help=__doc__)
@json_option
@click.option("--batch-size", default=64, show_default=True, help="Pairs in the batch.")
@click.option("--micro-batch-size", default=16, show_default=True, help="Items in a micro-batch.")
@click.option("--turns", default=7, show_default=True)
@click.option("--models", default=",".join(MODELS), show_default=True)
def main(json_file: Path | None, batch_size: int, micro_batch_size: int, turns: int, models: str) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        pairs = write_pairs(Path(temporary), batch_size)
        for name in models.split(","):
            adapter, folder = write_model(Path(temporary), name)
            rows.append({"model": name, **measure(adapter, folder, pairs, batch_size, micro_batch_size, turns)})
    show(rows, json_file)


if __name__ == "__main__":
    main()
