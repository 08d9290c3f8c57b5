"""Does peak memory grow with the number of items?

One list of image+text items (each image another one, 640 x 480 pixels) is encoded with a model that costs nothing but
decodes every image and sends a part of its pixels along, so that they pass through the pipeline as with a real one.
Flat means: beyond the items themselves (their text, path and vector, a few kilobytes) nothing is held.

    python -m benchmarks.evaluation.memory [--counts 1000,10000,100000] [--json FILE]
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.evaluation.harness import FreeModel
from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import watch
from benchmarks.support.photographs import write_photographs
from mmeb.data.images.image import FileImage
from mmeb.data.item import Item
from mmeb.models.base import Batch

_FILES = 200  # photographs on disk, under as many names as there are items
_SIDE = 180  # pixels


@dataclass(frozen=True, eq=False)
class Numbered(FileImage):
    """One of a few files under a name of its own."""

    number: int = 0

    @property
    def key(self) -> str:
        return f"{self.path}:{self.number}"


class LookingModel(FreeModel):
    """As free, but every image is decoded, and pixels of it are sent along."""

    def preprocess(self, items: Sequence[Item]) -> Batch:
        batch = super().preprocess(items)
        pixels = [np.asarray(item.image.rgb())[::2, ::2][:_SIDE, :_SIDE] for item in items if item.image is not None]
        batch.inputs["pixels"] = torch.from_numpy(np.stack(pixels)).float()
        return batch


def encode_numbered(folder: Path, count: int) -> None:
    from mmeb.evaluation.encode import encode

    files = sorted(folder.iterdir())
    items = [
        Item(f"<|image_1|>\nWhat is number {number}?\n", image=Numbered(files[number % len(files)], number=number))
        for number in range(count)
    ]
    encode(LookingModel(), items)


@click.command(help=__doc__)
@json_option
@click.option("--counts", default="1000,10000,100000", show_default=True, help="Numbers of items.")
@click.option("--run", nargs=2, type=(click.Path(path_type=Path), int), hidden=True)
def main(json_file: Path | None, counts: str, run: tuple[Path, int] | None) -> None:
    if run is not None:
        encode_numbered(*run)
        return
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        write_photographs(Path(temporary), _FILES)
        for count in (int(part) for part in counts.split(",")):
            _, seconds, peak, files = watch("benchmarks.evaluation.memory", temporary, count)
            rows.append({"items": count, "seconds": seconds, "peak GiB": peak, "mapped files GiB": files})
    for row in rows:
        grown = (row["peak GiB"] - rows[0]["peak GiB"]) * 2**20
        row["KiB more an item"] = grown / max(1, row["items"] - rows[0]["items"])
    show(rows, json_file)


if __name__ == "__main__":
    main()
