"""Phi-3.5-V at its full size with random weights: does it load, how long does it take, how much memory does it need?

    python -m benchmarks.evaluation.phi3_v_full_size [--device cuda]

A checkpoint of 8 GB in the official format is written into a temporary folder first (`--folder` keeps it). How fast it
is on a GPU says benchmarks/evaluation/gpu.py.
"""

import json
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from safetensors.torch import save_file

from mmeb.data.item import Item
from mmeb.models.adapters.vlm2vec import Phi35VModel
from mmeb.models.backbones.phi3_v_module import Phi3VModule
from mmeb.models.checkpoints.checkpoint import Checkpoint

TOKENIZER = Path(__file__).parents[2] / "tests/golden/ckpt/phi3_v"
PROMPT = "<|image_1|>\nRepresent the given image with the following question: What is beside the river?\n"
SIZES = [(640, 480), (480, 640), (500, 375), (1024, 1024), (1280, 400), (300, 900)]  # pixels
OFFICIAL: dict[str, Any] = {
    "model_type": "phi3_v",
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 131072,
    "original_max_position_embeddings": 4096,
    "sliding_window": 262144,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "su", "short_factor": [1.1] * 48, "long_factor": np.linspace(1, 64, 48).tolist()},
    "pad_token_id": 32000,
    "img_processor": {"name": "clip_vision_model", "image_dim_out": 1024, "num_img_tokens": 144},
    "embd_layer": {
        "embedding_cls": "image",
        "hd_transform_order": "sub_glb",
        "projection_cls": "mlp",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
}


def write_checkpoint(folder: Path) -> None:
    """Random weights in bf16, a file per decoder layer so that little is in memory at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(OFFICIAL))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder / name)
    with init_empty_weights():
        shapes = {name: weight.shape for name, weight in Phi3VModule(OFFICIAL).state_dict().items()}
    shapes["lm_head.weight"] = shapes["model.embed_tokens.weight"]
    generator = torch.Generator().manual_seed(0)
    parts = OFFICIAL["num_hidden_layers"] + 1
    files: dict[str, str] = {}
    for name in shapes:
        part = int(name.split(".")[2]) + 1 if name.startswith("model.layers.") else parts
        files[name] = f"model-{part:05}-of-{parts:05}.safetensors"
    for file in sorted(set(files.values())):
        weights = {
            name: torch.ones(shapes[name], dtype=torch.bfloat16)
            if "norm" in name and name.endswith("weight")
            else torch.empty(shapes[name], dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
            for name in shapes
            if files[name] == file
        }
        save_file(weights, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def items(count: int) -> list[Item]:
    rng = np.random.default_rng(0)
    sizes = [SIZES[number % len(SIZES)] for number in range(count)]
    pixels = [rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8) for width, height in sizes]
    images = [Image.fromarray(small).resize(size) for small, size in zip(pixels, sizes, strict=True)]
    return [Item(PROMPT, image=image) for image in images]


@contextmanager
def timed(label: str, device: torch.device) -> Iterator[None]:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    if cuda:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    click.echo(f"{label}: {wall:.2f} s ({cpu:.2f} s of CPU), peak {peak / 2**30:.2f} GiB")


def load(folder: Path, device: torch.device, num_crops: int) -> Phi35VModel:
    checkpoint = Checkpoint("full size", "random weights", folder)
    return Phi35VModel.load(checkpoint, device=device, dtype=torch.bfloat16, options={"num_crops": str(num_crops)})


@click.command(help=__doc__)
@click.option("--device", default="cpu")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the checkpoint is kept, for a second run.")
def main(device: str, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        folder = folder or Path(temporary)
        if not (folder / "model.safetensors.index.json").is_file():
            write_checkpoint(folder)
        place = torch.device(device)
        with timed("load", place):
            model = load(folder, place, num_crops=4)
        for label, item in (("image with text", items(1)[0]), ("text", Item("What is beside the river?\n"))):
            with timed(label, place):
                batch = model.preprocess([item])
                vector = model.embed(batch.to(place))
            click.echo(f"  {batch.tokens} tokens, finite: {bool(vector.isfinite().all())}")


if __name__ == "__main__":
    main()
