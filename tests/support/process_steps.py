"""Training steps in several processes that share each global batch, on the CPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import nn
from torch.distributed import destroy_process_group
from torch.distributed.tensor import DTensor

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.training.loop import UnreadableImages
from mmeb.training.recipe import Recipe
from mmeb.training.step import Embedder, StepResult, contrastive_step
from support.contrastive_steps import Gradients, golden_model, golden_pairs, gradients, make_step, with_lora


@dataclass(frozen=True)
class Case:
    """A step: the model it is taken with, its global batch and its recipe."""

    model: Callable[[], EmbeddingModel]
    pairs: list[TrainPair]
    recipe: Recipe
    skip_bad_rows: bool = False


@dataclass(frozen=True)
class Taken:
    """What a process came to, and the gradient that it then has; or the error that it raised."""

    outcome: StepResult | None
    gradients: Gradients
    error: str = ""


def _demo() -> EmbeddingModel:
    return DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))


def _phi3_v() -> EmbeddingModel:
    return golden_model("phi3_v")


def _dropping() -> EmbeddingModel:
    return with_lora(golden_model("qwen2_vl"), dropout=0.3)


def _dropping_and_checkpointing() -> EmbeddingModel:
    model = _dropping()
    model.module.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    return model


def _with_missing_images() -> list[TrainPair]:
    """The reference's pairs, of which rows 1 and 4 name files that are not there."""
    pairs = golden_pairs()
    query, positive = (Item("<|image_1|>\n", image=Path("/nowhere") / f"{role}.png", role=role) for role in Role)
    pairs[1] = replace(pairs[1], query=query)
    pairs[4] = replace(pairs[4], positives=(positive,))
    return pairs


# Batches with images and texts on both sides, and hard negatives.
_RECIPE = Recipe("demo", batch_size=8, temperature=0.1, symmetric=True, micro_batch_size=2)
CASES: Mapping[str, Case] = {
    "reference": Case(
        _phi3_v,
        golden_pairs(),
        Recipe("phi35v", batch_size=8, negatives=0, mask_equal_targets=False, micro_batch_size=2),
    ),
    "micro-batches": Case(_demo, golden_pairs(), replace(_RECIPE, micro_batch_size=3)),
    "one graph": Case(_demo, golden_pairs(), replace(_RECIPE, micro_batch_size=None)),
    "few items": Case(_demo, golden_pairs()[:3], replace(_RECIPE, micro_batch_size=10)),
    "dropout": Case(_dropping, golden_pairs(), _RECIPE),
    "checkpointing": Case(_dropping_and_checkpointing, golden_pairs(), _RECIPE),
    "learned temperature": Case(_demo, golden_pairs(), replace(_RECIPE, learn_temperature=True)),
    "bad rows": Case(_demo, _with_missing_images(), _RECIPE, skip_bad_rows=True),
    "bad rows, not skipped": Case(_demo, _with_missing_images(), _RECIPE),
}


def take_steps(names: list[str], sharded: bool = False) -> dict[str, Taken]:
    """Each case's step, in this process's part of it.

    Several processes are wrapped as the trainer has them wrapped; or, `sharded`, by FSDP.
    """
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(cpu=True, kwargs_handlers=[wrapping])
    taken = {name: _take(CASES[name], accelerator, sharded) for name in names}
    if accelerator.num_processes > 1:
        destroy_process_group()
    return taken


def _take(case: Case, accelerator: Accelerator, sharded: bool) -> Taken:
    torch.manual_seed(accelerator.process_index)  # nothing may depend on it
    model, recipe = case.model(), case.recipe
    embedder: nn.Module = Embedder(model, recipe.temperature if recipe.learn_temperature else None).train()
    embedder = _sharded(embedder, accelerator) if sharded else accelerator.prepare(embedder)
    rank, world = accelerator.process_index, accelerator.num_processes
    try:
        for _ in range(2):  # the first step may leave nothing behind in the wrapper
            embedder.zero_grad()
            batch = make_step(model, case.pairs, recipe, rank=rank, world=world)
            outcome = contrastive_step(embedder, batch, recipe, accelerator)
            UnreadableImages(case.skip_bad_rows, accelerator).report(outcome, batch)
    except MmebError as error:
        return Taken(None, {}, str(error))
    return Taken(outcome, gradients(embedder))


def _sharded(embedder: nn.Module, accelerator: Accelerator) -> nn.Module:
    """As the library prepares FSDP; it would do so on a GPU only, hence by hand."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", cpu_ram_efficient_loading=False
    )
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    prepared: nn.Module = fsdp2_prepare_model(accelerator, embedder)
    assert all(isinstance(weight, DTensor) for weight in prepared.parameters())
    return prepared
