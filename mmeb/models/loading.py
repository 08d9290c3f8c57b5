"""A model that is ready to embed, from its name."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel, NoOptions
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.resolve import resolve
from mmeb.models.checkpoints.weights import count_parameters
from mmeb.models.registry import ADAPTER_BY_MODEL_TYPE, adapter_class, find_entry, list_adapters, with_manifest
from mmeb.runtime.memory import check_memory

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float16": torch.float16,
    "fp16": torch.float16,
}


def load_model(
    name: str,
    *,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, str] | None = None,
    revision: str | None = None,
    offline: bool = False,
    device_map: str | None = None,
    meta: bool = False,
) -> EmbeddingModel:
    """Load a model by its registered name, its hub id, or its folder.

    `adapter` is the model's family where its name or its `config.json` does not tell. `device` is cuda where there is
    one, else cpu; `dtype` bfloat16 on a GPU, float32 on the CPU; `device_map="auto"` spreads the model over all GPUs.
    `options` are the adapter's, over the registry's. `revision` is a commit, branch or tag of a hub repository; with
    `offline` no call leaves the machine. `meta` puts the model on the meta device where the adapter supports it: no
    weights are downloaded or loaded, and it renders items and counts their tokens. Raises MmebError for a mistake in
    any of these, a checkpoint that does not fit the adapter, and too little memory.
    """
    entry = find_entry(name, adapter)
    entry = replace(entry, revision=revision or entry.revision)
    target = find_device(device, device_map)
    number = _dtype(dtype, target)
    base = (options or {}).get("base", entry.options.get("base"))
    if not entry.adapter:
        checkpoint = resolve(entry, base=base, offline=offline, weights=())
        entry = with_manifest(entry, checkpoint.path)
        entry = entry if entry.adapter else replace(entry, adapter=_guess_adapter(checkpoint))
    family = adapter_class(entry.adapter)
    # Where a LoRA's base lies is no option of the adapter, which is given its files.
    given = {name: value for name, value in {**entry.options, **(options or {})}.items() if name != "base"}
    if family.options_class is not NoOptions:  # others may have options that they do not declare
        family.parse_options(given)  # a typo is not worth a download
    can = family.capabilities
    meta = meta and can.meta
    # A folder's revision is a hash over its weights too, and they are there anyway.
    weights = () if meta and not Path(entry.source).is_dir() else can.weight_files
    checkpoint = resolve(entry, base=base, offline=offline, weights=weights)
    if meta:
        return family.load(checkpoint, device=torch.device("meta"), dtype=number, options=given)
    if target == "auto" and not can.spread:
        raise MmebError(f"A {family.adapter} model can't be spread over several devices: leave --device-map out.")
    parts = [part.path for part in (checkpoint, checkpoint.base) if part is not None]
    parameters = sum(count_parameters(folder, can.weight_files) for folder in parts)
    if number == torch.float32 and target != torch.device("cpu"):
        # By default, the convolutions of an image tower round their factors to 10 bits on a GPU (TF32).
        torch.backends.cudnn.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
    print(check_memory(entry.name, parameters, number, target), file=sys.stderr)
    return family.load(checkpoint, device=target, dtype=number, options=given)


def _guess_adapter(checkpoint: Checkpoint) -> str:
    """The adapter that a checkpoint's configuration means. Raises MmebError where it does not tell."""
    folder = (checkpoint.base or checkpoint).path
    hint = f"name one of {', '.join(list_adapters())} with --adapter."
    if (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file():
        return "open_clip"
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError):
        raise MmebError(f"{checkpoint.source} has no config.json that tells its adapter: {hint}") from None
    if model_type not in ADAPTER_BY_MODEL_TYPE:
        raise MmebError(f"{checkpoint.source} is a {model_type} model, which does not tell its adapter: {hint}")
    return ADAPTER_BY_MODEL_TYPE[model_type]


def find_device(device: str | None, device_map: str | None = None) -> torch.device | str:
    """The device, or "auto" for all of them. Raises MmebError for one that is not there."""
    if device_map is not None:
        if device_map != "auto":
            raise MmebError(f"--device-map can be auto, not {device_map!r}.")
        if device is not None:
            raise MmebError("--device-map auto takes all devices: leave --device out.")
        return "auto"
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
    except RuntimeError:
        raise MmebError(f"There is no device {device!r}: take cpu, cuda, or cuda:1 and so on.") from None
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if (target.index or 0) >= (count := present.get(target.type, 0)):
        raise MmebError(f"There is no {target} here, PyTorch can use {count} of that kind: take another --device.")
    return target


def _dtype(dtype: str | None, device: torch.device | str) -> torch.dtype:
    if dtype is None:
        on_gpu = torch.cuda.is_available() if device == "auto" else torch.device(device).type == "cuda"
        return torch.bfloat16 if on_gpu else torch.float32
    if dtype not in DTYPES:
        raise MmebError(f"There is no dtype {dtype!r}: take float32, bfloat16 or float16.")
    return DTYPES[dtype]
