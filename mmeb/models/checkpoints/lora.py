"""LoRA and DoRA adapters: read and written by `peft`, on a module without the language-model head.

An adapter's configuration and weights speak of the library's class with a head, in the names of the release that
trained it. So the module is shown to `peft` under those names (a `Layout`), and whatever the configuration says (names,
paths, regular expressions, patterns, layers) means what it meant in training.
"""

import copy
import difflib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.models.checkpoints.resolve import ADAPTER_CONFIG, LORA_WEIGHTS
from mmeb.models.checkpoints.weights import load_state_dict

WRAPPER = "base_model.model."  # what peft puts before the name of every module
NAME = "default"
HEAD = "lm_head"

# A module's place in the library's class with a head → its place in ours, "" for all of it; an empty one: as ours.
Layout = Mapping[str, str]

# What of a configuration decides what an adapter computes, as peft understands it.
_TAKEN = {
    *("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias", "bias"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save"),
    *("trainable_token_indices", "fan_in_fan_out", "init_lora_weights", "lora_dropout"),
}
# What says how it was trained or stored; any other setting that is switched on is refused.
_IGNORED = {
    *("peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"),
    *("peft_version", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("runtime_config", "qalora_group_size", "ensure_weight_tying"),
}
# Initialisations that change the base's weights and that peft repeats on loading; others that change them can't be.
_REPEATED, _UNREPEATABLE = ("pissa", "olora"), ("loftq", "corda", "lora_ga")


def attach(module: nn.Module, folder: Path, layouts: Sequence[Layout], *, merge: bool) -> None:
    """Put the adapter in `folder` on `module`, in place; with `merge`, into its weights.

    `layouts` are those of the library's class with a head, today's first; the one with the most modules that the
    adapter's weights name is taken. Targets that match nothing, and the weights of a head, are left out. Raises
    MmebError for a configuration that can't be followed, a weight that finds no module, a targeted module without
    weights, and a shape that differs: the adapter belongs to another base.
    """
    config, saved = _read_config(folder), load_state_dict(folder, LORA_WEIGHTS)
    saved = {_file_key(key): tensor for key, tensor in saved.items() if HEAD not in key.split(".")}
    layout, shown = _best_layout(module, layouts, saved)
    _leave_out_head(config, shown, folder)
    try:
        wrapped = _wrap(shown, config)
    except (ValueError, TypeError, KeyError, AttributeError, re.error) as error:
        raise MmebError(f"The adapter in {folder} was made for another model than this base: {error}") from error
    names = wrapped.state_dict().keys()
    saved = {_in_base_layer(key, names): tensor for key, tensor in saved.items()}
    expected = get_peft_model_state_dict(wrapped, adapter_name=NAME, save_embedding_layers=False)
    _check(folder, saved, expected, names)
    set_peft_model_state_dict(wrapped, saved, NAME)
    if merge:
        _add_missing_biases(shown)
        wrapped.merge_and_unload()
    _put_back(module, shown, layout)
    if not merge:
        _record(module, _in_todays_names(config, module, layout, layouts))
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
    _record(module, config)
    module.eval()  # its new parts, too


def is_on(module: nn.Module) -> bool:
    """Whether an adapter lies beside the module's weights."""
    return any(_is_lora(name) for name, _ in module.named_parameters())


def config_of(module: nn.Module) -> LoraConfig:
    """The configuration of the adapter that is on a module, in the names of today's class with a head."""
    config: LoraConfig = module.peft_config[NAME]  # type: ignore[index]
    return config


def train_only(module: nn.Module) -> None:
    """Freeze all weights but the adapter's."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(_is_lora(name))


def save(
    module: nn.Module,
    folder: Path,
    layouts: Sequence[Layout],
    *,
    base: str,
    base_revision: str | None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write `adapter_model.safetensors` and `adapter_config.json`, in the layout of peft, to an existing folder.

    The names are those of the first of `layouts`: of the library's class, on which others load it. `state` is the
    module's state where it can't be asked itself: gathered from many processes.
    """
    state = module.state_dict() if state is None else state
    keys: dict[str, str] = module.adapter_keys  # type: ignore[assignment]
    weights = {
        f"{WRAPPER}{_outer(layouts)}{key}": state[name].detach().cpu().contiguous() for key, name in keys.items()
    }
    save_file(weights, folder / f"{LORA_WEIGHTS[0]}.safetensors", metadata={"format": "pt"})
    config = copy.copy(config_of(module))
    config.inference_mode, config.base_model_name_or_path, config.revision = True, base, base_revision
    fields = {name: _plain(value) for name, value in config.to_dict().items()}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _wrap(module: nn.Module, config: LoraConfig) -> Any:
    with warnings.catch_warnings():
        # Names that transformers is about to drop, weights that are tied to a head, patterns that match the head alone.
        warnings.simplefilter("ignore")
        return get_peft_model(module, config, NAME)


def _record(module: Any, config: LoraConfig) -> None:
    """Note the configuration, and peft's keys of the adapter's weights: their names change where FSDP wraps modules."""
    module.peft_config = {NAME: config}
    names = {name: name for name in module.state_dict()}
    module.adapter_keys = get_peft_model_state_dict(module, names, NAME, save_embedding_layers=False)


def _is_lora(name: str) -> bool:
    return f".{NAME}" in name and ".lora_" in name


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else value


def _read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration, without what concerns training and storage alone."""
    path = folder / ADAPTER_CONFIG
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields.get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise MmebError(f"The {ADAPTER_CONFIG} in {folder} can't be used ({error}): download it again.") from None
    if kind != "LORA":
        raise MmebError(f"{folder} holds an adapter of type {kind}: only LoRA and DoRA can be loaded.")
    start = str(fields.get("init_lora_weights")).lower()
    if start.startswith(_UNREPEATABLE):
        raise MmebError(f"The adapter in {folder} sets init_lora_weights to {start!r}, which can't be repeated here.")
    for name in sorted(fields.keys() - _TAKEN - _IGNORED):
        if isinstance(fields[name], bool | str | list | dict) and fields[name]:  # a number alone switches nothing on
            raise MmebError(
                f"The adapter in {folder} sets {name} in its {ADAPTER_CONFIG}, which can't be followed here."
            )
    taken = {name: fields[name] for name in _TAKEN & fields.keys()}
    taken["init_lora_weights"] = fields["init_lora_weights"] if start.startswith(_REPEATED) else False
    try:
        return LoraConfig(**taken, inference_mode=True)
    except (ValueError, TypeError) as error:
        raise MmebError(f"The {ADAPTER_CONFIG} in {folder} can't be used ({error}): download it again.") from None


def _file_key(key: str) -> str:
    """A key as today's peft writes it: older files have the adapter's name in it, or no wrapper before it."""
    key = WRAPPER + key.removeprefix(WRAPPER)
    key = re.sub(rf"(\.lora_\w+|\.modules_to_save)\.{NAME}(?=\.|$)", r"\1", key)
    return key.replace(".modules_to_save.", ".").replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _in_base_layer(key: str, names: Mapping[str, Any] | Any) -> str:
    """A trained bias or weight of a module that an adapter is on, which lies one level deeper there."""
    path, _, leaf = key.rpartition(".")
    deeper = f"{path}.base_layer.{leaf}"
    return deeper if key not in names and deeper in names else key


def _best_layout(module: nn.Module, layouts: Sequence[Layout], saved: Mapping[str, Tensor]) -> tuple[Layout, nn.Module]:
    paths = {key.removeprefix(WRAPPER).partition(".lora_")[0] if ".lora_" in key else _owner(key) for key in saved}
    shown = [(layout, _show(module, layout)) for layout in (*layouts, {})]
    unknown = [len(paths - {name for name, _ in each.named_modules()}) for _, each in shown]
    return shown[unknown.index(min(unknown))]


def _owner(key: str) -> str:
    """The module that a key without factors belongs to."""
    path = key.removeprefix(WRAPPER).rpartition(".")[0]
    return path.removesuffix(".base_layer").removesuffix(".token_adapter")


def _show(module: nn.Module, layout: Layout) -> nn.Module:
    """The module's parts under the names that they have in a class with a head; the module itself without a layout."""
    if not layout:
        return module
    shown = nn.Module()
    for place, name in layout.items():
        parent, (*path, leaf) = shown, place.split(".")
        for part in path:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(leaf, module.get_submodule(name))
    return shown


def _outer(layouts: Sequence[Layout]) -> str:
    """What the names of our modules have in front in today's class with a head."""
    return "".join(f"{place}." for place in (layouts[0] if layouts else {}))


def _put_back(module: nn.Module, shown: nn.Module, layout: Layout) -> None:
    """Give the module the parts that peft replaced at the top of what it was shown."""
    for place, name in layout.items():
        if name and (part := shown.get_submodule(place)) is not module.get_submodule(name):
            module.set_submodule(name, part)


def _leave_out_head(config: LoraConfig, shown: nn.Module, folder: Path) -> None:
    """Drop a head among the modules that were trained fully: there is none here, and pooling needs no logits."""
    names = [name for name, _ in shown.named_modules()]
    kept = [each for each in config.modules_to_save or [] if each.rpartition(".")[2] != HEAD]
    for each in kept:
        if not any(name.endswith(each) for name in names):
            raise MmebError(f"The adapter in {folder} has {each!r} in modules_to_save, which its base does not have.")
    config.modules_to_save = kept or None


def _check(folder: Path, saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], names: Any) -> None:
    """Every key placed, every place filled, every shape equal; else one sentence that names the first.

    `expected` is what peft would save; the weights of a base's embedding may come along in the file.
    """
    extra = sorted(key for key in saved.keys() - expected.keys() if key not in names)
    missing = sorted(expected.keys() - saved.keys())
    wrong = [key for key in sorted(expected.keys() & saved.keys()) if expected[key].shape != saved[key].shape]
    if extra:
        what = f"{len(extra)} of its {len(saved)} weights find no module there, such as {_short(extra[0])}"
    elif missing:
        what = f"{len(missing)} of {len(expected)} weights are not in it, such as {_short(missing[0])}"
    elif wrong:
        key = wrong[0]
        what = f"{_short(key)} is {tuple(saved[key].shape)} and should be {tuple(expected[key].shape)}"
    else:
        return
    raise MmebError(f"The adapter in {folder} does not fit its base ({what}): load it on the base it was trained on.")


def _short(key: str) -> str:
    return key.removeprefix(WRAPPER)


def _add_missing_biases(module: nn.Module) -> None:
    """A bias of zero where the adapter has one and the base has none, so that they can be merged."""
    for part in module.modules():
        if isinstance(part, LoraLayer) and part.lora_bias.get(NAME):
            base: Any = part.get_base_layer()
            if base.bias is None:
                base.bias = nn.Parameter(base.weight.new_zeros(base.weight.shape[0]), requires_grad=False)


def _in_todays_names(config: LoraConfig, module: nn.Module, layout: Layout, layouts: Sequence[Layout]) -> LoraConfig:
    """The configuration with which today's class with a head gets the adapter that is on `module`."""
    if layout == (layouts[0] if layouts else {}):
        return config
    outer = _outer(layouts)
    on = {outer + name: part for name, part in module.named_modules() if isinstance(part, LoraLayer)}
    config = copy.copy(config)
    plain = isinstance(config.target_modules, set) and not any("." in name for name in config.target_modules)
    restricted = config.exclude_modules or config.layers_to_transform is not None
    if not plain or restricted:
        config.target_modules = set(on)
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.rank_pattern = {name: part.r[NAME] for name, part in on.items() if part.r[NAME] != config.r}
    config.alpha_pattern = {
        name: part.lora_alpha[NAME] for name, part in on.items() if part.lora_alpha[NAME] != config.lora_alpha
    }
    return config
