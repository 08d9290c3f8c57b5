"""Phi-3.5-V at its full size on a GPU: our path against a naive one that does what the reference does.

Random weights in bf16. Ours is `mmeb.encode`: workers, batches by cost, only the crops that there are, neither head nor
mask. The naive way prepares batches of 8 in the order in which they come, between the forward passes; it pads every
image to all crops, masks, keeps all hidden states and the cache, and computes logits for every token. Floating-point
operations are those of matrix products and attention, counted on some of the items and scaled to all.

    python -m benchmarks.evaluation.gpu [--json FILE]         # 1000 items with an image, and 1000 texts
    python -m benchmarks.evaluation.gpu --tiny                # a tiny checkpoint on the CPU: does it work?
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import peak_gib, reset_peak
from benchmarks.support.phi3_v import TINY, load, write_checkpoint
from benchmarks.support.phi3_v import items as image_items
from benchmarks.support.timing import seconds
from mmeb.data.item import Item
from mmeb.evaluation.encode import encode
from mmeb.models.adapters.decoder_embedder import last_token
from mmeb.models.adapters.vlm2vec import Phi35VModel
from mmeb.models.backbones.base import put_features
from mmeb.models.base import Batch

BATCH = 8
COUNTED = 48  # items on which operations are counted
# Dense bf16, TFLOP/s, from the makers' data sheets.
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "A10G": 70}

Vectors = NDArray[np.float32]
Way = Callable[[Sequence[Item]], Vectors]


def texts(count: int) -> list[Item]:
    """From a word to a paragraph, as candidates and captions are."""
    rng = np.random.default_rng(0)
    lengths = np.maximum(1, np.rint(rng.lognormal(np.log(10), 0.8, count))).astype(int)
    return [Item(f"{number} " + "house beside the river " * int(length)) for number, length in enumerate(lengths)]


def naive(model: Phi35VModel, head: Tensor, num_crops: int) -> Way:
    def embed(items: Sequence[Item]) -> Vectors:
        vectors = []
        with torch.no_grad():
            for start in range(0, len(items), BATCH):
                batch = model.preprocess(items[start : start + BATCH]).to(model.device)
                vectors.append(naive_forward(model, batch, head, num_crops).float().cpu().numpy())
        return np.concatenate(vectors)

    return embed


def naive_forward(model: Phi35VModel, batch: Batch, head: Tensor, num_crops: int) -> Tensor:
    inputs = batch.inputs
    decoder: Any = model.backbone.module.model
    embeddings = decoder.embed_tokens(inputs["input_ids"].clamp_min(0))
    if "crops" in inputs:
        crops = inputs["crops"].to(embeddings.dtype)
        padded = crops.new_zeros(batch.size * (num_crops + 1) - len(crops), *crops.shape[1:])
        features = decoder.vision_embed_tokens(torch.cat([crops, padded]), inputs["layout"])
        embeddings = put_features(embeddings, inputs["is_image"], features)
    columns = torch.arange(embeddings.shape[1], device=model.device)
    mask = (columns < inputs["lengths"][:, None]).long()
    out = decoder(inputs_embeds=embeddings, attention_mask=mask, use_cache=True, output_hidden_states=True)
    (out.hidden_states[-1] @ head.T).float()
    return last_token(out.hidden_states[-1], inputs["lengths"])


def measure(
    name: str, kind: str, model: Phi35VModel, way: Way, items: Sequence[Item]
) -> tuple[dict[str, Any], Vectors]:
    some = items[: min(COUNTED, len(items))]
    with FlopCounterMode(display=False) as counter:
        way(some)
    gflop = counter.get_total_flops() / len(some) / 1e9
    reset_peak(model.device)
    taken: list[Vectors] = []
    took = seconds(lambda: taken.append(way(items)))
    peak = peak_gib(model.device)
    speed = gflop * len(items) / took / 1e3
    card = torch.cuda.get_device_name() if model.device.type == "cuda" else ""
    limit = next((value for part, value in PEAKS.items() if part in card), None)
    row = {
        "items": kind,
        "way": name,
        "count": len(items),
        "items/s": len(items) / took,
        "GFLOP an item": gflop,
        "TFLOP/s": speed,
        "% of peak": 100 * speed / limit if limit else None,
        "peak GiB": peak,
    }
    return row, taken[0]


@click.command(help=__doc__)
@json_option
@click.option("--device", help="[default: cuda, cpu with --tiny]")
@click.option("--count", default=1000, show_default=True, help="Items of each kind.")
@click.option("--num-crops", default=4, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the checkpoint is kept, for a second run.")
@click.option("--tiny", is_flag=True, help="A tiny checkpoint: does it work?")
def main(
    json_file: Path | None, device: str | None, count: int, num_crops: int, folder: Path | None, tiny: bool
) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        path = TINY if tiny else write_checkpoint(folder or Path(temporary))
        model = load(path, torch.device(device or ("cpu" if tiny else "cuda")), num_crops)
        vocabulary = len(model.module.get_submodule("model.embed_tokens").get_parameter("weight"))
        head = torch.randn(vocabulary, model.dim, device=model.device, dtype=model.dtype)
        ways: dict[str, Way] = {
            "mmeb": lambda items: encode(model, items),
            "naive": naive(model, head, num_crops),
        }
        figures = []
        for kind, items in (("image+text", image_items(count)), ("text", texts(count))):
            runs = {name: measure(name, kind, model, way, items) for name, way in ways.items()}
            times = {name: row["count"] / row["items/s"] for name, (row, _) in runs.items()}
            for name, (row, vectors) in runs.items():
                cosine = float((vectors * runs["mmeb"][1]).sum(axis=1).min())
                figures.append({**row, "times mmeb's": times[name] / times["mmeb"], "least cosine": cosine})
    show(figures, json_file)


if __name__ == "__main__":
    main()
