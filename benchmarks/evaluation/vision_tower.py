"""How many crops does Phi-3.5-V's image tower see, of those that the images have?

Images of many shapes are prepared and embedded in batches; a hook at the tower counts. Beside it, what the reference
implementation runs through the tower for the same images: its processor pads each to `num_crops` and the global view.

    python -m benchmarks.evaluation.vision_tower [--json FILE]
"""

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionModel

from benchmarks.support.checkpoints import GOLDEN
from benchmarks.support.figures import json_option, show
from mmeb.data.item import Item
from mmeb.evaluation.encode import Encoder
from mmeb.models.backbones.phi3_v_image import crop_grid
from mmeb.models.loading import load_model

CHECKPOINT = GOLDEN / "phi3_v"
# (width, height) in pixels: photographs, a page, a screenshot, a panorama, an infographic, a strip, a crop.
SIZES = ((640, 480), (480, 640), (1700, 2200), (1366, 768), (800, 400), (800, 2400), (1200, 240), (90, 120))


def count_crops(num_crops: int, items: list[Item]) -> dict[str, float]:
    model = load_model(str(CHECKPOINT), device="cpu", options={"num_crops": str(num_crops)})
    computed = [0]

    def look(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        computed[0] += len(inputs[0])

    towers = [module for module in model.module.modules() if isinstance(module, CLIPVisionModel)]
    with torch.inference_mode():
        hook = towers[0].embeddings.register_forward_pre_hook(look)
        Encoder(model, workers=0, progress=False)(items)
        hook.remove()
    grids = [crop_grid(item.image.size(), num_crops) for item in items if item.image is not None]
    needed = sum(rows * columns + 1 for rows, columns in grids)
    padded = len(grids) * (num_crops + 1)
    return {
        "num_crops": num_crops,
        "images": len(grids),
        "crops needed": needed,
        "computed": computed[0],
        "computed / needed": computed[0] / needed,
        "padded": padded,
        "padded / needed": padded / needed,
    }


@click.command(help=__doc__)
@json_option
@click.option("--count", default=24, show_default=True, help="Images.")
def main(json_file: Path | None, count: int) -> None:
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        pixels = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        items.append(Item("<|image_1|>\nWhat is it?\n", image=pixels.resize(SIZES[number % len(SIZES)])))
    show([count_crops(num_crops, items) for num_crops in (4, 16)], json_file)


if __name__ == "__main__":
    main()
