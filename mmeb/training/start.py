"""The model that a run starts from: what of it is trained, and the rest frozen."""

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints import lora
from mmeb.models.loading import find_device, load_model
from mmeb.models.registry import adapter_class
from mmeb.runtime.processes import launched, own_device
from mmeb.training.recipe import LoraSettings, Recipe, find_recipe, recipe_names

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Trainable:
    """What of a model is trained: modules with an adapter by pattern (none without a LoRA), and numbers of weights."""

    modules: Mapping[str, int]
    trained: int
    all: int

    def __str__(self) -> str:
        lines = [f"  {pattern} x {count}" for pattern, count in self.modules.items()]
        head = f"LoRA on {sum(self.modules.values())} modules:\n" if lines else ""
        share = f"{self.trained:,} of {self.all:,} parameters are trained ({self.trained / self.all:.2%})."
        return head + "\n".join([*lines, share])


def start_model(
    recipe: Recipe, *, device: str | None = None, offline: bool = False, weights: bool = True
) -> tuple[EmbeddingModel, Recipe, Trainable]:
    """The recipe's model, ready to be trained; the recipe, with the shape of the adapter that it goes on from.

    `device` is cpu or cuda; with several processes each takes the GPU of its local rank. Without `weights` the model
    lies on the meta device, where the adapter knows how and there is no earlier LoRA to read. Raises MmebError for an
    adapter that can't be trained, or not with a LoRA, for targets that match nothing, and for what can't be loaded.
    """
    check_adapter(recipe)
    model = _load(recipe, str(find_device(own_device(launched(), device))), offline, meta=not weights)
    module = model.module
    if any(isinstance(part, _BATCH_NORMS) for part in module.modules()):
        raise MmebError(
            f"{model.name} has batch normalisation, by which an item's vector depends on its batch: "
            "train a model without it."
        )
    module.requires_grad_(recipe.lora is None)
    if recipe.lora is not None:
        recipe = _with_lora(model, recipe, recipe.lora)
    if recipe.freeze_tower:
        _freeze_tower(model)
    if recipe.gradient_checkpointing:
        _checkpoint_gradients(model)
    trainable = describe(module)
    if trainable.trained == 0:
        raise MmebError("No weight is left to train: leave freeze_tower out, or name other lora.targets.")
    return model, recipe, trainable


def check_adapter(recipe: Recipe) -> None:
    """Raise MmebError for an adapter that is not there, or can't be trained as the recipe says; loads nothing."""
    family = adapter_class(recipe.adapter)
    if not family.capabilities.training:
        raise MmebError(f"The adapter {recipe.adapter} can't be trained: its embeddings carry no gradients.")
    if recipe.lora is not None and not family.capabilities.lora:
        raise MmebError(
            f"The adapter {recipe.adapter} takes no LoRA: leave the lora settings out to train all weights."
        )
    if recipe.model is None and not issubclass(family, DemoModel):
        raise MmebError(f"The adapter {recipe.adapter} needs a model to start from: name one with --model.")


def describe(module: nn.Module) -> Trainable:
    """What of a module is trained."""
    parameters = list(module.named_parameters())
    adapted = {name.partition(".lora_")[0] for name, each in parameters if ".lora_" in name and each.requires_grad}
    patterns = Counter(re.sub(r"\.\d+(?=\.)", ".*", name) for name in sorted(adapted))
    trained = sum(each.numel() for _, each in parameters if each.requires_grad)
    return Trainable(patterns, trained, sum(each.numel() for _, each in parameters))


def _load(recipe: Recipe, device: str, offline: bool, *, meta: bool) -> EmbeddingModel:
    if recipe.model is None:
        DemoModel.parse_options(recipe.options)
        return DemoModel.new(DemoConfig(), seed=recipe.seed, device=torch.device(device))
    # Small steps would be lost in the rounding of bfloat16: where all weights are trained they are float32, and
    # autocast computes in bfloat16. A frozen base loses nothing.
    is_full = recipe.lora is None
    dtype = "float32" if is_full or recipe.dtype == "float32" else None if recipe.dtype == "auto" else recipe.dtype
    model = load_model(
        recipe.model,
        adapter=recipe.adapter,
        device=device,
        dtype=dtype,
        options={**recipe.options, **({} if is_full else {"lora": "keep"})},
        revision=recipe.model_revision,
        offline=offline,
        meta=meta,
    )
    if meta and not is_full and model.checkpoint.base is not None:
        return _load(recipe, device, offline, meta=False)  # the adapter to go on from is part of the shape
    return model


def _with_lora(model: EmbeddingModel, recipe: Recipe, settings: LoraSettings) -> Recipe:
    """A new adapter on the model, or the one that is on it already: then the recipe has its shape."""
    if not lora.is_on(model.module):
        lora.create(
            model.module,
            settings.targets,
            rank=settings.rank,
            alpha=settings.alpha,
            dropout=settings.dropout,
            dora=settings.dora,
            seed=recipe.seed,
            spared=model.capabilities.image_tower if recipe.freeze_tower else (),
        )
        lora.train_only(model.module)
        return recipe
    config = lora.config_of(model.module)
    found = LoraSettings(
        tuple(sorted(config.target_modules)), config.r, config.lora_alpha, config.lora_dropout, config.use_dora
    )
    asked = replace(settings, targets=found.targets) if set(settings.targets) == set(found.targets) else settings
    named = [find_recipe(name).recipe for name in recipe_names()]
    defaults = [each.lora for each in named if each.adapter == recipe.adapter]
    if asked != found and settings not in defaults:
        raise MmebError(
            f"{model.name} is an adapter of rank {found.rank}, alpha {found.alpha} and dropout {found.dropout} on "
            f"{', '.join(found.targets)}: a run that goes on from it can't change that."
        )
    lora.train_only(model.module)
    return replace(recipe, lora=found)


def _freeze_tower(model: EmbeddingModel) -> None:
    if not model.capabilities.image_tower:
        raise MmebError(f"The adapter {model.adapter} names no image tower: leave freeze_tower out.")
    for name in model.capabilities.image_tower:
        model.module.get_submodule(name).requires_grad_(False)


def _checkpoint_gradients(model: EmbeddingModel) -> None:
    module: Any = model.module
    if hasattr(module, "gradient_checkpointing_enable"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the library is about to rename it
            # Reentrant checkpoints would lose the gradient where no input of a layer needs one: a frozen base's.
            module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(module, "set_grad_checkpointing"):  # open_clip
        module.set_grad_checkpointing(True)
    else:
        raise MmebError(f"The adapter {model.adapter} has no gradient checkpointing: leave it out.")
