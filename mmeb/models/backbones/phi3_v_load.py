"""An official Phi-3.5-V checkpoint into our module, every key in its place."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from transformers import PreTrainedTokenizerFast

from mmeb.errors import MmebError
from mmeb.models.backbones.phi3_v_module import Phi3VModule
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.weights import POSITION_IDS, check_type, load_state_dict, load_strict

EMBEDDINGS = "model.embed_tokens.weight"
EMBEDDINGS_ALIAS = "model.vision_embed_tokens.wte.weight"  # checkpoints have either of the two, or both
NOT_LOADED = ("lm_head.weight", *POSITION_IDS)
REQUIRED = ("hidden_size", "img_processor", "max_position_embeddings", "original_max_position_embeddings")
NOT_SPLIT = ["Phi3DecoderLayer", "ImageEmbedding"]  # what stays on one device when a model is spread over several


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's `config.json`. Raises MmebError where it is missing or of another model."""
    check_type(checkpoint, ["phi3_v"])
    config: dict[str, Any] = json.loads((checkpoint.path / "config.json").read_text())
    if missing := [name for name in REQUIRED if name not in config]:
        raise MmebError(f"The config.json of {checkpoint.source} lacks {missing[0]}: download it again.")
    return config


def load_tokenizer(checkpoint: Checkpoint) -> PreTrainedTokenizerFast:
    """The checkpoint's `tokenizer.json` as it stands. Raises MmebError where it is missing or broken."""
    try:
        return PreTrainedTokenizerFast.from_pretrained(checkpoint.path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing narrower
        file = checkpoint.path / "tokenizer.json"
        raise MmebError(f"{file} is missing or broken: download {checkpoint.source} again.") from error


def load_module(
    config: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device | str, dtype: torch.dtype
) -> Phi3VModule:
    """The module with the checkpoint's weights in `dtype` on `device` ("auto": spread out; "meta": no weights).

    Parameters are never made twice: the module is built without memory behind it, and the weights are put in its
    place. Its rotary frequencies stay in float32 whatever `dtype` is.
    """
    with init_empty_weights(include_buffers=False):
        module = Phi3VModule(config)
    if device == torch.device("meta"):
        return module.to(device).eval()
    state = {name: weight.to(dtype) for name, weight in load_state_dict(checkpoint.path).items()}
    load_strict(
        module,
        state,
        checkpoint.source,
        rename=lambda name: EMBEDDINGS if name == EMBEDDINGS_ALIAS else name,
        ignored=NOT_LOADED,
        assign=True,
    )
    module.eval()
    if device == "auto":
        dispatch_model(module, infer_auto_device_map(module, no_split_module_classes=NOT_SPLIT, dtype=dtype))
        return module
    return module.to(device)
