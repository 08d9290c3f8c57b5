"""Single training steps: the reference's batch on its tiny checkpoints, and the gradient that a step leaves."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.distributed.tensor import DTensor

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model
from mmeb.training.batch import Rows, StepBatch, plan_step, prepare
from mmeb.training.loop import UnreadableImages
from mmeb.training.recipe import Recipe
from mmeb.training.step import Embedder, StepResult, contrastive_step
from support.paths import GOLDEN

ADAPTERS = {"phi3_v": "phi35v", "qwen2_vl": "qwen2-vl"}
_OPTIONS = {"phi3_v": {"num_crops": "4"}, "qwen2_vl": {"image_resolution": "low"}}

Gradients = dict[str, NDArray[np.float32]]


def reference(name: str) -> Any:
    """A JSON file of the reference's training steps."""
    return json.loads((GOLDEN / f"train/{name}.json").read_text())


def golden_model(name: str, **options: str) -> EmbeddingModel:
    """A tiny checkpoint, with the options of the reference's steps unless others are given."""
    options = _OPTIONS[name] | options
    return load_model(str(GOLDEN / "ckpt" / name), adapter=ADAPTERS[name], dtype="float32", options=options)


def with_lora(model: EmbeddingModel, *, dora: bool = False, dropout: float = 0.0) -> EmbeddingModel:
    """The same model under an adapter that changes its embeddings, so that all of its weights have a gradient."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_dropout=dropout,
        use_dora=dora,
        init_lora_weights=False,
        target_modules=["q_proj", "v_proj", "down_proj", "qkv_proj"],
    )
    model.module.requires_grad_(False)
    inject_adapter_in_model(config, model.module)
    return model


def item(text: str, path: str, role: Role) -> Item:
    return Item(text, image=GOLDEN / "data/images" / path if path else None, role=role)


def pair(row: Mapping[str, str]) -> TrainPair:
    """A row of the reference's as a pair; its hard negative, which the reference drops, too."""
    query, positive, negative = (
        item(row[f"{part}"] or "", row[path] or "", role)
        for part, path, role in (
            ("qry", "qry_image_path", Role.QUERY),
            ("pos_text", "pos_image_path", Role.CANDIDATE),
            ("neg_text", "neg_image_path", Role.CANDIDATE),
        )
    )
    has_negative = row["neg_text"] or row["neg_image_path"]
    return TrainPair(query, (positive,), (negative,) if has_negative else ())


def golden_pairs() -> list[TrainPair]:
    """The 8 pairs of the reference's batch: questions on images, captions, and images with a change."""
    return [pair(row) for row in reference("phi3_v")["samples"]]


def all_rows(pairs: Sequence[TrainPair]) -> Rows:
    """All pairs of one subset, in order."""
    return [(0, row) for row in range(len(pairs))]


def make_step(
    model: EmbeddingModel, pairs: Sequence[TrainPair], recipe: Recipe, *, rank: int = 0, world: int = 1, step: int = 0
) -> StepBatch:
    """All pairs as one batch: this process's part of it."""
    plan = plan_step(model, [pairs], recipe, step, all_rows(pairs), rank=rank, world=world)
    work = [plan.work(micro_batch) for micro_batches in plan.passes for micro_batch in micro_batches]
    return StepBatch(
        plan, (prepare(model, each) for each in work), lambda work: (prepare(model, each) for each in work)
    )


def take_step(
    model: EmbeddingModel, pairs: Sequence[TrainPair], recipe: Recipe, *, step: int = 0, skip_bad_rows: bool = False
) -> tuple[StepResult, Gradients]:
    """One step over all pairs in this process: what it came to, and the gradient of every weight that has one."""
    embedder = Embedder(model, recipe.temperature if recipe.learn_temperature else None).train()
    embedder.zero_grad()
    batch, accelerator = make_step(model, pairs, recipe, step=step), Accelerator(cpu=True)
    result = contrastive_step(embedder, batch, recipe, accelerator)
    UnreadableImages(skip_bad_rows, accelerator).report(result, batch)
    return result, gradients(embedder)


def gradients(embedder: nn.Module) -> Gradients:
    """By the weights' names in the model, whatever wraps it; of sharded ones in full."""
    found = {name: weight.grad for name, weight in embedder.named_parameters() if weight.grad is not None}
    full = {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in found.items()}
    return {name.removeprefix("module.").removeprefix("weights."): grad.numpy().copy() for name, grad in full.items()}


def total_norm(grads: Gradients) -> float:
    return float(np.sqrt(sum(np.square(grad, dtype=np.float64).sum() for grad in grads.values())))


def assert_equal_gradients(found: Gradients, expected: Gradients, tolerance: float = 1e-6) -> None:
    """Every gradient, element by element, to `tolerance` of the full gradient's norm; all of them have one."""
    assert found.keys() == expected.keys()
    scale = total_norm(expected)
    assert scale > 0
    for name, grad in expected.items():
        np.testing.assert_allclose(found[name], grad, rtol=0, atol=tolerance * scale, err_msg=name)
