"""The backbones with their tiny checkpoints, and how tests embed with them."""

import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmeb.models.adapters.decoder_embedder import last_token
from mmeb.models.backbones.base import Backbone, EncodedRow
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.backbones.qwen2_vl import Qwen2VLBackbone
from mmeb.models.checkpoints.checkpoint import Checkpoint
from support.paths import GOLDEN

IMAGES = GOLDEN / "data/images"
CLASSES: dict[str, type[Backbone]] = {
    "phi3_v": Phi3VBackbone,
    "llava_next": LlavaNextBackbone,
    "qwen2_vl": Qwen2VLBackbone,
}
SIDES = {"high": 1344, "mid": 672, "low": 128}  # pixels that the reference stretches images to
SENTENCE = "A red dog runs near the old house in the park. "
PROMPT = "<|image_1|>\nRepresent the given image.\n"


def load(name: str, folder: Path | None = None, **options: Any) -> Any:
    """A backbone from `folder`, or from the tiny checkpoint of its name."""
    return CLASSES[name](Checkpoint("tiny", "tiny", folder or GOLDEN / "ckpt" / name), **options)


@cache
def tiny(name: str, **options: Any) -> Any:
    """A backbone from its tiny checkpoint, shared by all tests: not to be changed."""
    return load(name, **options)


def copy_of(name: str, folder: Path) -> Path:
    """A copy of a tiny checkpoint, for a test that spoils it."""
    return Path(shutil.copytree(GOLDEN / "ckpt" / name, folder))


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def picture(path: str, resolution: str = "none") -> Image.Image | None:
    """One of the reference's images, stretched as it stretches them; None for a row without image."""
    if not path:
        return None
    image: Image.Image = Image.open(IMAGES / path)
    side = SIDES.get(resolution)
    return image.resize((side, side)) if side else image


def embed(backbone: Backbone, rows: Sequence[EncodedRow]) -> NDArray[np.float32]:
    """Unit vectors of `rows` in one batch, (n, dim)."""
    batch = backbone.collate(rows)
    with torch.inference_mode():
        vectors: NDArray[np.float32] = last_token(backbone.forward(batch.inputs), batch.inputs["lengths"]).numpy()
    return vectors
