"""How long does everything but the model take?

MMEB's full shape (36 tasks, 1000 queries each, as many candidates as in the real data) is scored with a model that
costs nothing, on images that are not decoded: what remains is reading the rows, finding the images, planning the
batches, the worker processes, ranking and writing results. Seconds and peak memory are of the whole command, with the
import of its libraries.

    python -m benchmarks.evaluation.harness [--json FILE]
"""

import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import click
import torch
from torch import Tensor, nn

from benchmarks.support.figures import json_option, show
from benchmarks.support.mmeb_shape import ROWS, write_suite
from benchmarks.support.peak_memory import watch
from mmeb.data.item import Item
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint

DIM = 512
_TABLE = 4096


class FreeModel(EmbeddingModel):
    """A vector by the item's hash, without a look at its image: the sum of two rows of a random table."""

    adapter = "free"

    def __init__(self) -> None:
        self.name, self.dim, self.device, self.dtype = "free", DIM, torch.device("cpu"), torch.float32
        self.module = nn.Linear(1, 1)
        self.table = torch.randn(_TABLE, DIM, generator=torch.Generator().manual_seed(0))

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        return cls()

    def preprocess(self, items: Sequence[Item]) -> Batch:
        keys = [zlib.crc32(f"{item.prompt}\0{item.image.key if item.image else ''}".encode()) for item in items]
        return Batch({"rows": torch.tensor([[key % _TABLE, key // _TABLE % _TABLE] for key in keys])}, len(items))

    def embed(self, batch: Batch) -> Tensor:
        return nn.functional.normalize(self.table[batch.inputs["rows"]].sum(dim=1), dim=-1)

    def cost(self, item: Item) -> int:
        return 1 + len(item.prompt) // 4

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "adapter": self.adapter, "dtype": "float32", "dim": self.dim}


def score(data: Path, output: Path) -> None:
    from mmeb.evaluation.evaluate import evaluate

    result = evaluate(FreeModel(), "all", data, output)
    parts: dict[str, float] = {}
    for task in result.tasks.values():
        for name, seconds in task.provenance["seconds"].items():
            parts[name] = parts.get(name, 0) + seconds
    click.echo(" ".join(f"{name}={seconds:.2f}" for name, seconds in parts.items()))


@click.command(help=__doc__)
@json_option
@click.option("--rows", default=ROWS, show_default=True, help="Queries of each task.")
@click.option("--most", default=10_000, show_default=True, help="Distinct candidates of each task at most.")
@click.option("--run", nargs=2, type=click.Path(path_type=Path), hidden=True)
def main(json_file: Path | None, rows: int, most: int, run: tuple[Path, Path] | None) -> None:
    if run is not None:
        score(*run)
        return
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "MMEB-eval")
        items = write_suite(data, rows=rows, most=most)
        output, seconds, peak, files = watch("benchmarks.evaluation.harness", data, Path(temporary, "run"))
    parts = {name: float(value) for name, value in (part.split("=") for part in output.split()[-5:])}
    show([{"items": items, "seconds": seconds, "peak GiB": peak, "mapped files GiB": files, **parts}], json_file)


if __name__ == "__main__":
    main()
