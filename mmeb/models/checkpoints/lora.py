"""LoRA and DoRA adapters, old and new, on a backbone of today's class."""

import copy
import difflib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.models.checkpoints.resolve import ADAPTER_CONFIG, LORA_WEIGHTS
from mmeb.models.checkpoints.weights import load_state_dict

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
        wrapped = _wrap(module, config)
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


def create(
    module: nn.Module,
    targets: Sequence[str],
    *,
    rank: int,
    alpha: int,
    dropout: float,
    dora: bool,
    seed: int,
    spared: Sequence[str] = (),
) -> None:
    """Put a new adapter on `module`, in place: the only weights that are trained, in float32 at least.

    `targets` are names of modules or their last parts; what lies under the modules `spared` gets none. The first
    factor is drawn from a normal distribution by `seed`, the second is zero, so that the module computes what it did
    before. Raises MmebError for a target that matches nothing, or what is no linear layer.
    """
    exclude = rf"(.*\.)?({'|'.join(map(re.escape, spared))})(\..*)?" if spared else None
    names = [name for name, _ in module.named_modules()]
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in names):
            ends = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdigit()} - {""})
            near = difflib.get_close_matches(target.rpartition(".")[2], ends, n=3, cutoff=0.4) or ends[:6]
            raise MmebError(f"The LoRA target {target!r} matches no module: near it are {', '.join(near)}.")
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_dora=dora,
        target_modules=list(targets),
        exclude_modules=exclude,
        init_lora_weights="gaussian",  # as the reference: src/model.py of VLM2Vec
    )
    device = next(module.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        try:
            _wrap(module, config)
        except ValueError as error:
            raise MmebError(f"A LoRA can't be put on these targets: {str(error).splitlines()[0]}") from error
    module.eval()  # its new parts, too


def is_on(module: nn.Module) -> bool:
    """Whether an adapter lies beside the module's weights."""
    return any(_is_lora(name) for name, _ in module.named_parameters())


def config_of(module: nn.Module) -> LoraConfig:
    """The configuration of the adapter that is on a module."""
    config: LoraConfig = module.peft_config[NAME]  # type: ignore[index]
    return config


def train_only(module: nn.Module) -> None:
    """Freeze all weights but the adapter's."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_is_lora(name))


def save(
    module: nn.Module,
    folder: Path,
    *,
    base: str,
    base_revision: str | None,
    outer: str = "",
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, in the layout of peft, to an existing folder.

    `outer` is what the names of modules have in front in the library's class with a language-model head, which others
    load the adapter on. `state` is the module's state where it can't be asked itself: gathered from many processes.
    """
    weights = {
        _saved(name, outer): tensor.detach().cpu().contiguous()
        for name, tensor in (module.state_dict() if state is None else state).items()
        if _is_lora(name)
    }
    save_file(weights, folder / f"{LORA_WEIGHTS[0]}.safetensors", metadata={"format": "pt"})
    config = copy.copy(config_of(module))
    config.inference_mode, config.base_model_name_or_path, config.revision = True, base, base_revision
    fields = {name: _plain(value) for name, value in config.to_dict().items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _wrap(module: nn.Module, config: LoraConfig) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a name that transformers is about to drop
        return get_peft_model(module, config, NAME)


def _is_lora(name: str) -> bool:
    return f".{NAME}" in name and ".lora_" in name


def _saved(name: str, outer: str) -> str:
    """A parameter's name in a file: without the adapter's name, and DoRA's magnitude without `.weight`."""
    path, _, leaf = name.rpartition(".lora_")
    kind = leaf.partition(".")[0]
    return f"{WRAPPER}{outer}{path}.lora_{kind}" + ("" if kind == "magnitude_vector" else ".weight")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else value


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
