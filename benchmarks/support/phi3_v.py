"""Phi-3.5-V: a checkpoint of its full size with random weights, and images for it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image
from safetensors.torch import save_file

from benchmarks.support.checkpoints import GOLDEN
from mmeb.data.item import Item
from mmeb.models.adapters.vlm2vec import Phi35VModel
from mmeb.models.backbones.phi3_v_module import Phi3VModule
from mmeb.models.checkpoints.checkpoint import Checkpoint

TINY = GOLDEN / "phi3_v"
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


def write_checkpoint(folder: Path) -> Path:
    """Random weights in bf16, 8 GB in a file per decoder layer so that little is in memory at a time.

    Nothing is done where a checkpoint is in the folder already.
    """
    if (folder / "model.safetensors.index.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(OFFICIAL))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TINY / name, folder / name)
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
    return folder


def items(count: int) -> list[Item]:
    rng = np.random.default_rng(0)
    sizes = [SIZES[number % len(SIZES)] for number in range(count)]
    pixels = [rng.integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8) for width, height in sizes]
    images = [Image.fromarray(small).resize(size) for small, size in zip(pixels, sizes, strict=True)]
    return [Item(PROMPT, image=image) for image in images]


def load(folder: Path, device: torch.device, num_crops: int) -> Phi35VModel:
    checkpoint = Checkpoint("full size", "random weights", folder)
    return Phi35VModel.load(checkpoint, device=device, dtype=torch.bfloat16, options={"num_crops": str(num_crops)})
