"""Checkpoints with random weights in the official formats, of the sizes that a benchmark needs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import CLIPConfig, CLIPModel, Qwen2VLConfig, Qwen2VLForConditionalGeneration

GOLDEN = Path(__file__).parents[2] / "tests/golden/ckpt"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


class Size(NamedTuple):
    """Width and layers of image tower and text tower or decoder, and the most pixels of an image."""

    tower: tuple[int, int]
    text: tuple[int, int]
    pixels: int


CLIP_SIZES = {
    "tiny": Size((64, 2), (64, 2), 224**2),
    "small": Size((384, 8), (256, 8), 224**2),
    "b32": Size((768, 12), (512, 12), 224**2),
}
QWEN_SIZES = {
    "tiny": Size((64, 2), (64, 2), 112**2),
    "small": Size((256, 4), (256, 6), 224**2),
    "50m": Size((512, 8), (512, 8), 336**2),
}


def write_clip(folder: Path, size: str) -> Path:
    """A CLIP with patches of 32 pixels; `b32` has the size of ViT-B/32, 126 M parameters with a small vocabulary."""
    (tower, tower_layers), (text, text_layers), _ = CLIP_SIZES[size]
    _copy("clip", folder, _TOKENIZER)
    vocabulary = json.loads((GOLDEN / "clip/config.json").read_text())["text_config"]
    config = CLIPConfig(
        projection_dim=text,
        vision_config={**_widths(tower), "num_hidden_layers": tower_layers, "image_size": 224, "patch_size": 32},
        text_config={
            **_widths(text),
            "num_hidden_layers": text_layers,
            **{name: vocabulary[name] for name in ("vocab_size", "bos_token_id", "eos_token_id")},
        },
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)
    _change("clip", folder, {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}})
    return folder


def write_qwen2_vl(folder: Path, size: str) -> Path:
    """A Qwen2-VL; images keep their shape and are scaled down to the size's number of pixels."""
    (tower, tower_layers), (text, text_layers), pixels = QWEN_SIZES[size]
    _copy("qwen2_vl", folder, (*_TOKENIZER, "chat_template.json"))
    old = json.loads((GOLDEN / "qwen2_vl/config.json").read_text())
    ids = {f"{name}_token_id": old[f"{name}_token_id"] for name in ("image", "video", "vision_start", "vision_end")}
    heads = text // 64 or 1
    half = text // heads // 2
    config = Qwen2VLConfig(
        text_config={
            **_widths(text),
            "num_hidden_layers": text_layers,
            "num_key_value_heads": max(1, heads // 2),
            "vocab_size": old["vocab_size"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [half // 4, half * 3 // 8, half - half // 4 - half * 3 // 8],
            },
            **{name: old[name] for name in ("bos_token_id", "eos_token_id")},
        },
        vision_config={
            "depth": tower_layers,
            "embed_dim": tower,
            "hidden_size": text,
            "num_heads": tower // 64 or 1,
            "mlp_ratio": 4,
        },
        tie_word_embeddings=True,
        **ids,
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    _change("qwen2_vl", folder, {"min_pixels": 56**2, "max_pixels": pixels})
    return folder


def _widths(width: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": width // 64 or 1}


def _copy(name: str, folder: Path, files: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(GOLDEN / name / file, folder / file)


def _change(name: str, folder: Path, changes: dict[str, Any]) -> None:
    """The image processor's settings of a checkpoint in tests/golden, with some of them changed."""
    settings = json.loads((GOLDEN / name / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | changes, indent=2))
