"""How much of what a model computes is padding?

The batches of all 36 tasks, as `mmeb run` would form them, of the demo's data and of data with MMEB's shape: the tokens
that only fill rows up, over real tokens. Beside it the same items in batches of 8 as they come, the reference's way.
Nothing is embedded: a row's length is known before.

    python -m benchmarks.evaluation.padding [--data demo|shape|both] [--json FILE]
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.support.checkpoints import GOLDEN
from benchmarks.support.figures import json_option, show
from benchmarks.support.mmeb_shape import ROWS, write_suite
from mmeb.data.dataset import load_eval
from mmeb.data.part import Source
from mmeb.data.source import open_source
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model
from mmeb.runtime.batching import BatchLimit, plan_batches
from mmeb.tasks import TASKS

# Checkpoints with the official tokenizers' behaviour and a small vocabulary: texts are longer in tokens than with a
# full one, in proportion.
MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "phi35v": ("phi3_v", {}),
    "llava-next": ("llava_next", {}),
    "qwen2-vl": ("qwen2_vl", {}),
    "qwen2-vl, own size": ("qwen2_vl", {"image_resolution": "none"}),
    "e5v": ("e5v", {}),
    "clip": ("clip", {}),
    "blip": ("blip", {}),
    "blip2": ("blip2", {}),
}
DEVICES = ("cpu", "cuda")  # the budgets of a batch that these have


def padding(costs: NDArray[np.int64], batches: Iterable[NDArray[np.intp]]) -> int:
    return sum(int(costs[batch].max()) * len(batch) - int(costs[batch].sum()) for batch in batches)


def measure(name: str, model: EmbeddingModel, source: Source, data: str) -> dict[str, float | str]:
    """Padding over real tokens in all tasks together, and in the worst of them."""
    tokens = 0
    filled = dict.fromkeys((*DEVICES, "8 in order"), 0)
    worst = ("", 0.0)
    for task in TASKS:
        dataset = load_eval(task, source)
        items = [*dataset.queries, *dataset.candidates]
        costs = np.array([model.cost(item) for item in items], dtype=np.int64)
        groups = [model.group(item) for item in items]
        plans = {device: plan_batches(costs, groups, BatchLimit.parse("auto", device)) for device in DEVICES}
        plans["8 in order"] = [
            side[start : start + 8]
            for side in np.split(np.arange(len(items)), [len(dataset.queries)])
            for start in range(0, len(side), 8)
        ]
        found = {plan: padding(costs, batches) for plan, batches in plans.items()}
        for plan, fill in found.items():
            filled[plan] += fill
        tokens += int(costs.sum())
        worst = max(worst, (task.name, found["cuda"] / int(costs.sum())), key=lambda pair: pair[1])
    return {
        "data": data,
        "model": name,
        "tokens": tokens,
        **{f"padding, {plan} %": 100 * fill / tokens for plan, fill in filled.items()},
        "worst task (cuda)": f"{worst[0]} {100 * worst[1]:.1f} %",
    }


@click.command(help=__doc__)
@json_option
@click.option("--data", type=click.Choice(["demo", "shape", "both"]), default="both", show_default=True)
@click.option("--rows", default=ROWS, show_default=True, help="Queries of each task of the data with MMEB's shape.")
@click.option("--only", help="Models whose name holds this.")
def main(json_file: Path | None, data: str, rows: int, only: str | None) -> None:
    chosen = {name: setting for name, setting in MODELS.items() if only is None or only in name}
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        sources = {}
        if data in ("demo", "both"):
            sources["demo"] = open_source("demo")
        if data in ("shape", "both"):
            write_suite(Path(temporary, "MMEB-eval"), rows=rows)
            sources["MMEB's shape"] = open_source(Path(temporary, "MMEB-eval"))
        for name, (folder, options) in chosen.items():
            adapter = name.split(",")[0]
            model = load_model(str(GOLDEN / folder), adapter=adapter, device="cpu", options=options)
            figures += [measure(name, model, source, label) for label, source in sources.items()]
    show(figures, json_file, floatfmt=".2f")


if __name__ == "__main__":
    main()
