"""An official Phi-3.5-V checkpoint into our module, every key in its place."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mmeb.errors import MmebError
from mmeb.models.backbones.phi3_v_module import Phi3VModule
from mmeb.models.checkpoint import Checkpoint

EMBEDDINGS = "model.embed_tokens.weight"
EMBEDDINGS_ALIAS = "model.vision_embed_tokens.wte.weight"  # checkpoints have either of the two, or both
NOT_LOADED = ("lm_head.weight", "embeddings.position_ids")  # the head is not needed; the positions are 0, 1, 2, …
NOT_SPLIT = ["Phi3DecoderLayer", "ImageEmbedding"]  # what stays on one device when a model is spread over several


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's `config.json`. Raises MmebError where it is missing or of another model."""
    path = checkpoint.path / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MmebError(f"{path} can't be read ({error}): download {checkpoint.source} again.") from None
    if config.get("model_type") != "phi3_v":
        raise MmebError(f"{checkpoint.source} is a {config.get('model_type')} model, not phi3_v: name another adapter.")
    return config


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's `tokenizer.json` as it stands. Raises MmebError where it is missing or broken."""
    try:
        return PreTrainedTokenizerFast.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError) as error:
        file = checkpoint.path / "tokenizer.json"
        raise MmebError(f"{file} is missing or broken: download {checkpoint.source} again.") from error


def load_module(
    config: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device | str, dtype: torch.dtype
) -> Phi3VModule:
    """The module with the checkpoint's weights in `dtype` on `device` (or spread out, for "auto").

    Parameters are never made twice: the module is built without memory behind it, and the weights are put in its
    place. Its rotary frequencies stay in float32 whatever `dtype` is.
    """
    with init_empty_weights(include_buffers=False):
        module = Phi3VModule(config)
    weights = {
        EMBEDDINGS if name == EMBEDDINGS_ALIAS else name: weight.to(dtype)
        for name, weight in _read(checkpoint).items()
        if not name.endswith(NOT_LOADED)
    }
    _check(weights, module.state_dict(), checkpoint)
    module.load_state_dict(weights, assign=True)
    module.eval()
    if device == "auto":
        dispatch_model(module, infer_auto_device_map(module, no_split_module_classes=NOT_SPLIT, dtype=dtype))
        return module
    return module.to(device)


def _read(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """All weights of the folder by name: safetensors where there are some, else `.bin` (tensors only, no code)."""
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        files = _files(checkpoint.path, stem, suffix)
        if files:
            break
    else:
        raise MmebError(f"{checkpoint.path} has no weights: download {checkpoint.source} again.")
    weights: dict[str, Tensor] = {}
    for file in files:
        try:
            weights |= load_file(file) if suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise MmebError(f"{file} can't be read ({error}): download {checkpoint.source} again.") from error
    return weights


def _files(folder: Path, stem: str, suffix: str) -> list[Path]:
    index = folder / f"{stem}{suffix}.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    whole = folder / f"{stem}{suffix}"
    return [whole] if whole.is_file() else []


def _check(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    missing, extra = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    wrong = [name for name in wanted.keys() & weights.keys() if wanted[name].shape != weights[name].shape]
    if missing:
        what = f"{len(missing)} weights are missing, such as {missing[0]}"
    elif extra:
        what = f"{len(extra)} weights have no place, such as {extra[0]}"
    elif wrong:
        name = min(wrong)
        what = f"{name} is {tuple(weights[name].shape)}, and the config says {tuple(wanted[name].shape)}"
    else:
        return
    raise MmebError(f"The weights in {checkpoint.path} don't fit its config ({what}): download the checkpoint again.")
