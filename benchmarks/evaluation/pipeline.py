"""How many items a second, over those of a bare loop of the same forward passes?

The loop has everything ready: preprocessed batches in memory, none padded. `mmeb` begins at the files, so that reading,
decoding, resizing and tokenising compete with the forward passes where the CPU does both. Both take turns.

    python -m benchmarks.evaluation.pipeline [--json FILE]
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.support.checkpoints import write_clip, write_qwen2_vl
from benchmarks.support.figures import json_option, show
from benchmarks.support.photographs import write_photographs
from benchmarks.support.timing import in_turns
from mmeb.data.item import Item
from mmeb.evaluation.encode import Encoder
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.models.loading import load_model
from mmeb.runtime.batching import BatchLimit, plan_batches

PROMPT = "<|image_1|>\nRepresent the given image with the following question: What is beside the river?\n"


def unpadded(model: EmbeddingModel, items: Sequence[Item]) -> list[Batch]:
    """Preprocessed batches of items of equal length."""
    costs = np.array([model.cost(item) for item in items], dtype=np.int64)
    groups = [(model.group(item), cost) for item, cost in zip(items, costs.tolist(), strict=True)]
    limit = BatchLimit.parse("auto", model.device.type)
    batches = plan_batches(costs, groups, limit)
    return [model.preprocess([items[index] for index in batch]).to(model.device) for batch in batches]


@torch.inference_mode()
def forward(model: EmbeddingModel, batches: Sequence[Batch]) -> None:
    """The bare loop."""
    for batch in batches:
        model.embed(batch).float().cpu()


def measure(name: str, model: EmbeddingModel, items: Sequence[Item], repeats: int) -> dict[str, float | str]:
    batches = unpadded(model, items)
    forward(model, batches[:1])  # warm-up
    ways: dict[str, Callable[[], object]] = {
        "bare": lambda: forward(model, batches),
        "mmeb": lambda: Encoder(model, progress=False)(items),
    }
    taken = in_turns(ways, repeats)
    bare, ours = (statistics.median(taken[name]) for name in ways)
    return {
        "model": name,
        "M parameters": sum(weight.numel() for weight in model.module.parameters()) / 1e6,
        "items": len(items),
        "bare loop, items/s": len(items) / bare,
        "mmeb, items/s": len(items) / ours,
        "mmeb / bare loop": statistics.median(np.divide(taken["bare"], taken["mmeb"])),
    }


@click.command(help=__doc__)
@json_option
@click.option("--device", default="cpu", show_default=True)
@click.option("--count", default=96, show_default=True, help="Items of Qwen2-VL; CLIP gets eight times as many.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--tiny", is_flag=True, help="Tiny models: does it work?")
def main(json_file: Path | None, device: str, count: int, repeats: int, tiny: bool) -> None:
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        paths = write_photographs(Path(temporary, "photographs"), 8 * count)
        folders = {
            "clip": write_clip(Path(temporary, "clip"), "tiny" if tiny else "b32"),
            "qwen2-vl": write_qwen2_vl(Path(temporary, "qwen2-vl"), "tiny" if tiny else "50m"),
        }
        for adapter, folder in folders.items():
            options = {"image_resolution": "none"} if adapter == "qwen2-vl" else {}
            model = load_model(str(folder), adapter=adapter, device=device, dtype="float32", options=options)
            items = [Item(PROMPT, image=path) for path in paths[: 8 * count if adapter == "clip" else count]]
            figures.append(measure(adapter, model, items, repeats))
    show(figures, json_file)


if __name__ == "__main__":
    main()
