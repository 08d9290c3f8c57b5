"""LoRA and DoRA adapters, old and new, on a backbone of today's class."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.models.resolve import ADAPTER_CONFIG, LORA_WEIGHTS
from mmeb.models.weights import load_state_dict

WRAPPER = "base_model.model."  # what peft puts before the name of every module
NAME = "default"

Renames = Sequence[tuple[str, str]]


def attach(module: nn.Module, folder: Path, renames: Renames, *, merge: bool) -> None:
    """Put the adapter in `folder` on `module`, in place; with `merge`, into its weights.

    `renames` are pairs (old prefix, new prefix) of module names, tried in order for a name that `module` lacks:
    adapters carry the names of the library version that saved them. Names in the adapter's `target_modules` that
    match nothing are fine. Raises MmebError where a key of the adapter finds no module, a targeted module has no key,
    or a shape differs: the adapter belongs to another base.
    """
    config, saved = _config(folder), load_state_dict(folder, LORA_WEIGHTS)
    modules = dict(module.named_modules())
    placed = {_today(key, modules, renames): tensor for key, tensor in saved.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses a name that transformers is about to drop
            wrapped = get_peft_model(module, config, NAME)
    except ValueError as error:
        raise MmebError(f"The adapter in {folder} was made for another model than this base: {error}") from error
    wanted = {
        name.removeprefix(WRAPPER): parameter
        for name, parameter in wrapped.named_parameters()
        if f".{NAME}" in name and "lora_" in name
    }
    _check(folder, placed, wanted)
    with torch.no_grad():
        for name, parameter in wanted.items():
            parameter.copy_(placed[name])
    if merge:
        wrapped.merge_and_unload()
    module.eval()


def _config(folder: Path) -> LoraConfig:
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MmebError(f"The {ADAPTER_CONFIG} in {folder} can't be used ({error}): download it again.") from None
    if not isinstance(config, LoraConfig):
        raise MmebError(f"{folder} holds an adapter of type {config.peft_type}: only LoRA and DoRA can be loaded.")
    config.inference_mode = True
    config.base_model_name_or_path = None  # peft would warn that the base lies elsewhere than on its author's machine
    return config


def _today(key: str, modules: Mapping[str, nn.Module], renames: Renames) -> str:
    """The parameter's name on today's module: `base_model.model.` off, module renamed, adapter name put in."""
    name = key.removeprefix(WRAPPER)
    path, dot, leaf = name.rpartition(".lora_")
    if not dot:
        return name
    for old, new in [("", ""), *renames]:
        if path.startswith(old) and new + path[len(old) :] in modules:
            path = new + path[len(old) :]
            break
    kind, _, rest = leaf.partition(".")
    rest = rest.removeprefix(f"{NAME}.").removeprefix(NAME) or "weight"  # DoRA's magnitude is saved without ".weight"
    return f"{path}.lora_{kind}.{NAME}.{rest}"


def _check(folder: Path, placed: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Every key placed, every place filled, every shape equal; else one sentence that names the first."""
    extra, missing = sorted(placed.keys() - wanted.keys()), sorted(wanted.keys() - placed.keys())
    wrong = [name for name in sorted(wanted.keys() & placed.keys()) if wanted[name].shape != placed[name].shape]
    if extra:
        what = f"{len(extra)} of its {len(placed)} weights find no module there, such as {extra[0]}"
    elif missing:
        what = f"{len(missing)} of {len(wanted)} weights are not in it, such as {missing[0]}"
    elif wrong:
        name = wrong[0]
        what = f"{name} is {tuple(placed[name].shape)} and should be {tuple(wanted[name].shape)}"
    else:
        return
    raise MmebError(f"The adapter in {folder} does not fit its base ({what}): load it on the base it was trained on.")
