"""The settings of a training run: recipes as commented YAML files, checked, and changed by `key=value`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from mmeb.errors import MmebError
from mmeb.inputs import Names, Text, parse, suggest

_FOLDER = Path(__file__).parent / "recipes"
_FORMER_NAMES = {"sub_batch_size": "micro_batch_size", "sub_batch_tokens": "micro_batch_tokens"}
_SETTING = re.compile(r"(?:^#.*\n)*^(?P<name>\w+):.*\n(?:^[ -].*\n)*", re.MULTILINE)  # with the comment above it


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter: `targets` are names of modules, or their last parts, as in peft."""

    targets: Names
    rank: int = 8
    alpha: int = 64
    dropout: float = 0.1
    dora: bool = True

    def __post_init__(self) -> None:
        """Raises MmebError for settings that no adapter can have."""
        if not self.targets:
            raise MmebError("A LoRA needs targets: name modules by lora.targets=q_proj,v_proj, for example.")
        _check(self, "The LoRA's {}", at_least_1=("rank", "alpha"))
        if not 0 <= self.dropout < 1:
            raise MmebError(f"The LoRA's dropout must be from 0 to below 1, not {self.dropout}.")


@dataclass(frozen=True)
class Recipe:
    """The settings of a run that affect its result.

    `model` is what it starts from: a registered name, a hub id or a folder; `options` are the adapter's. Without
    `lora` all weights are trained, with `freeze_tower` all but the image tower's.

    `batch_size` counts pairs over all processes. Batches are of one subset each, of homogeneous parts of `interleave`
    pairs, or `mixed`. `negatives` is how many hard negatives of a row are used. GradCache runs a batch in micro-batches
    of at most `micro_batch_tokens` tokens and `micro_batch_size` items (None: no limit); with neither, the full batch
    keeps its graph.

    `learning_rate` is the highest; it rises over `warmup_steps` and falls by `schedule` to 0 at `steps`.
    """

    adapter: str
    model: str | None = None
    model_revision: str | None = None
    options: Mapping[str, Text] = field(default_factory=dict)
    lora: LoraSettings | None = None
    freeze_tower: bool = False
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    subsets: Names = ("all",)
    split: str = "original"
    limit: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    negatives: int | None = None

    batch_size: int = 1024
    batches: Literal["homogeneous", "interleaved", "mixed"] = "homogeneous"
    interleave: int = 64
    micro_batch_size: int | None = None
    micro_batch_tokens: int | None = None

    temperature: float = 0.02
    learn_temperature: bool = False
    symmetric: bool = False
    mask_equal_targets: bool = True

    steps: int = 2000
    learning_rate: float = 2e-5
    warmup_steps: int = 200
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        """Raises MmebError for settings that can't be trained with."""
        if self.batch_size < 2:
            raise MmebError("The batch size must be 2 or more: a pair's negatives are the other pairs of its batch.")
        _check(
            self,
            "The {}",
            above_0=("steps", "learning_rate", "temperature", "max_grad_norm"),
            at_least_1=("limit", "interleave", "micro_batch_size", "micro_batch_tokens"),
            at_least_0=("warmup_steps", "weight_decay", "negatives"),
        )
        if self.batches == "interleaved" and self.batch_size % self.interleave:
            raise MmebError(
                f"The batch size, {self.batch_size}, must be a multiple of the parts that it is interleaved from, "
                f"{self.interleave}."
            )


@dataclass(frozen=True)
class RunSettings:
    """Where a run is written to, how often it is saved, logged and scored, and what it runs on.

    Every `save_every` steps there is a checkpoint, of which the last `keep` stay; None keeps only what the end writes.
    Every `eval_every` steps (None: never) the tasks `eval_tasks` of `eval_data` are scored, `eval_limit` queries each.
    `report_to` names trackers of the transformers Trainer ("tensorboard", "wandb"). `workers` processes prepare batches
    in the background (None: by the device). `fsdp` and `deepspeed` are the Trainer's configuration files.
    """

    output: Path
    save_every: int | None = 200
    keep: int = 2
    log_every: int = 10
    eval_every: int | None = None
    eval_tasks: str = "ood"
    eval_data: str = "demo"
    eval_limit: int | None = None
    report_to: tuple[str, ...] = ()
    workers: int | None = None
    skip_bad_rows: bool = False
    resume: bool = False
    progress: bool = True
    fsdp: Path | None = None
    deepspeed: Path | None = None

    def __post_init__(self) -> None:
        """Raises MmebError for a number that can't be worked with."""
        counts = ("save_every", "keep", "log_every", "eval_every", "eval_limit")
        _check(self, "--{}", at_least_1=counts, at_least_0=("workers",))


def _check(
    settings: Any,
    label: str,
    *,
    above_0: Sequence[str] = (),
    at_least_1: Sequence[str] = (),
    at_least_0: Sequence[str] = (),
) -> None:
    """Raise MmebError for a number that is too small; None is no number. NaN is never large enough."""
    for limit, names in {"above 0": above_0, "1 or more": at_least_1, "0 or more": at_least_0}.items():
        for name in names:
            value = getattr(settings, name)
            if value is not None and not (value > 0 if names is above_0 else value >= int(limit[0])):
                shown = label.format(name.replace("_", "-" if label.startswith("--") else " "))
                raise MmebError(f"{shown} must be {limit}, not {value}.")


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, its `name`, and the commented YAML `text` that it was read from."""

    name: str
    recipe: Recipe
    text: str

    def show(self, recipe: Recipe) -> str:
        """The text with the settings of `recipe`: what differs loses its comment, what is not named is added."""
        original, current = to_mapping(self.recipe), to_mapping(recipe)

        def setting(match: re.Match[str]) -> str:
            name = match["name"]
            return match[0] if current[name] == original[name] else _dump({name: current[name]})

        shown = _SETTING.sub(setting, self.text)
        named = yaml.safe_load(self.text)
        others = {name: value for name, value in current.items() if name not in named}
        shown += f"\n# All other settings.\n{_dump(others)}" if others else ""
        return shown if _is(recipe, shown) else _dump(current)  # quoted names and `{...}` can't be changed in place


def recipe_names() -> list[str]:
    """The recipes that have a name; an adapter's default one has the adapter's."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_recipe(name: str | Path | None = None, adapter: str | None = None) -> NamedRecipe:
    """The recipe of a name or in a YAML file, or an adapter's default one.

    An adapter without a recipe trains all weights by the defaults of `Recipe`. Raises MmebError for an unknown name, a
    file that can't be read, and a recipe of another adapter.
    """
    names = recipe_names()
    if name is None:
        if adapter is None:
            raise MmebError("Name what to train with --adapter, such as phi35v, or give a recipe with --recipe.")
        if adapter not in names:
            return NamedRecipe(adapter, Recipe(adapter=adapter), f"adapter: {adapter}\n")
        name = adapter
    is_file = isinstance(name, Path) or name.endswith((".yaml", ".yml")) or Path(name).is_file()
    if not is_file and name not in names:
        hint = suggest(str(name), names, n=2, cutoff=0.4) or f"there are {', '.join(names)}."
        raise MmebError(f"There is no recipe {name!r}: {hint}")
    named = _read(Path(name) if is_file else _FOLDER / f"{name}.yaml")
    if adapter is not None and named.recipe.adapter != adapter:
        raise MmebError(f"The recipe {name} is for the adapter {named.recipe.adapter}, not {adapter}.")
    return named


def _read(path: Path) -> NamedRecipe:
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except FileNotFoundError:
        raise MmebError(
            f"There is no file {path}: `mmeb train --adapter NAME --show` prints one to begin with."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MmebError(f"{path} can't be read as YAML: {' '.join(str(error).split())}.") from None
    for former, current in _FORMER_NAMES.items():
        if isinstance(content, Mapping) and {former, current} <= content.keys():
            raise MmebError(f"{path}: {former} is the former name of {current}: leave one of them out.")
        text = re.sub(rf"^{former}:", f"{current}:", text, flags=re.MULTILINE)
    return NamedRecipe(path.stem, from_mapping(content, str(path)), text)


def _is(recipe: Recipe, text: str) -> bool:
    try:
        return from_mapping(yaml.safe_load(text)) == recipe
    except (yaml.YAMLError, MmebError):
        return False


def from_mapping(content: Any, where: str = "The recipe") -> Recipe:
    """A recipe from plain values. Raises MmebError for an unknown setting, a wrong value, and a missing adapter."""
    if isinstance(content, Mapping):
        content = {_FORMER_NAMES.get(name, name): value for name, value in content.items()}
    return parse(Recipe, content, where)


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values: lists for tuples, a mapping for the LoRA."""
    plain: dict[str, Any] = yaml.safe_load(_dump(asdict(recipe)))
    return plain


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """The recipe with settings by name; `lora.rank` and `options.num_crops` reach inside a setting.

    Raises MmebError for an unknown setting, a wrong value, and a setting of a LoRA that the recipe lacks.
    """
    content = to_mapping(recipe)
    for name, value in settings.items():
        outer, dot, inner = name.partition(".")
        if not dot or outer not in ("lora", "options", "weights"):
            content[name] = value
            continue
        if content[outer] is None and inner != "targets":
            if "lora.targets" not in settings:
                raise MmebError(
                    f"The recipe trains all weights, so {name} has nothing to set: name modules by lora.targets to "
                    "train a LoRA instead."
                )
            content[outer] = {"targets": settings["lora.targets"]}
        content[outer] = {**(content[outer] or {}), inner: value}
    return from_mapping(content)


def read_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs by key, the values as in YAML. Raises MmebError for one that can't be read."""
    settings = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise MmebError(f"A setting is written KEY=VALUE, not {pair!r}.")
        try:
            settings[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise MmebError(f"The value of {key} can't be read: {text!r}.") from None
    return settings


def _dump(settings: Mapping[str, Any]) -> str:
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes a tuple as a list."""


_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)
