"""From a recipe to a trained model on disk that loads by its folder alone."""

import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmeb.data.source import find_rows, open_source
from mmeb.data.train.dataset import TrainSubset, open_train
from mmeb.evaluation.evaluate import evaluate
from mmeb.evaluation.provenance import library_versions
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints.checkpoint import MANIFEST
from mmeb.tasks import get_tasks
from mmeb.training.card import model_card
from mmeb.training.checkpoint import LOG_FILE, refuse_overwriting
from mmeb.training.log import read_log
from mmeb.training.loop import Evaluate, Save, TrainOutcome, train
from mmeb.training.recipe import Recipe, RunSettings, to_mapping
from mmeb.training.sampler import batches_of
from mmeb.training.start import Trainable, check_adapter, start_model

CARD = "README.md"


@dataclass(frozen=True)
class Prepared:
    """A run that could start: model, data, and the recipe as it will be followed."""

    model: EmbeddingModel
    recipe: Recipe
    trainable: Trainable
    subsets: Sequence[TrainSubset]

    @property
    def pairs(self) -> int:
        return sum(map(len, self.subsets))

    def __str__(self) -> str:
        """What would be done, line by line."""
        recipe, pairs = self.recipe, self.pairs
        start = recipe.model or "random weights"
        rows = [f"  {subset.name}  {len(subset):,}" + _without(subset.skipped) for subset in self.subsets]
        epochs = recipe.steps * recipe.batch_size / pairs
        return "\n".join(
            [
                f"Model: {start} ({recipe.adapter}), dimension {self.model.dim}",
                str(self.trainable),
                f"Data: {len(self.subsets)} subsets, {pairs:,} pairs",
                *rows,
                f"Steps: {recipe.steps:,} of {recipe.batch_size:,} pairs, {epochs:.2f} epochs",
            ]
        )


def prepare(
    recipe: Recipe,
    *,
    data: str = "hub",
    revision: str | None = None,
    device: str | None = None,
    offline: bool = False,
    skip_bad_rows: bool = False,
    weights: bool = True,
) -> Prepared:
    """Open the data and load the model; without `weights` only its shape, where the adapter knows how.

    Raises MmebError for a mistake in the recipe, data that is missing, and a model that can't be trained.
    """
    check_adapter(recipe)
    subsets = open_train(
        data,
        recipe.subsets,
        split=recipe.split,
        limit=recipe.limit,
        seed=recipe.seed,
        revision=revision,
        offline=offline,
        skip_bad_rows=skip_bad_rows,
    )
    batches_of(subsets, recipe)  # what can't be drawn from is said before a model is loaded
    model, recipe, trainable = start_model(recipe, device=device, offline=offline, weights=weights)
    return Prepared(model, recipe, trainable, subsets)


def run(
    recipe: Recipe,
    settings: RunSettings,
    *,
    data: str = "hub",
    revision: str | None = None,
    device: str | None = None,
    offline: bool = False,
    command: str = "",
) -> TrainOutcome:
    """Train by a recipe, on `data`, and write the model to `settings.output`.

    Beside the weights lie `mmeb.json`, by which `load_model` takes the folder without further options, and a model
    card; in every checkpoint as well. `command` is what the card shows as the way to repeat it. Raises MmebError as
    `prepare` and `train` do.
    """
    refuse_overwriting(settings.output, resume=settings.resume)
    if settings.eval_every is not None:
        _fetch_evaluation(settings, offline)
    prepared = prepare(
        recipe, data=data, revision=revision, device=device, offline=offline, skip_bad_rows=settings.skip_bad_rows
    )
    if is_first():
        print(prepared)
    save = saver(prepared, settings, command)
    scorer = evaluator(prepared.model, settings, offline) if settings.eval_every is not None else None
    return train(prepared.model, prepared.subsets, prepared.recipe, settings, save, scorer)


def is_first() -> bool:
    """Whether this process speaks for all, by the rank that its launcher gave it."""
    return os.environ.get("RANK", "0") == "0"


def saver(prepared: Prepared, settings: RunSettings, command: str) -> Save:
    """What writes a model's own files to a folder: weights, manifest, card."""
    model, recipe = prepared.model, prepared.recipe

    def save(folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        if recipe.lora is None and recipe.dtype != "float32" and model.device.type == "cuda":
            # As it computed, in half the space; the exact weights are in the checkpoint's own state.
            full = model.module.state_dict() if state is None else state
            state = {name: each.to(torch.bfloat16) if each.is_floating_point() else each for name, each in full.items()}
        model.save(folder, state)
        log = read_log(settings.output / LOG_FILE)
        manifest = manifest_of(prepared, command)
        if recipe.learn_temperature:
            manifest["temperature"] = next((line["temperature"] for line in reversed(log) if "loss" in line), None)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        scores = [line for line in log if any(name.startswith("eval/") for name in line)]
        (folder / CARD).write_text(model_card(manifest, settings, scores), encoding="utf-8")

    return save


def evaluator(model: EmbeddingModel, settings: RunSettings, offline: bool) -> Evaluate:
    """What scores the model in the middle of a run: hit@1 by task, and their mean.

    Nothing stays but the scores: a run's folder would name the model that training began with.
    """
    folder = settings.output / ".eval"

    def score(_: int) -> dict[str, float]:
        result = evaluate(
            model,
            settings.eval_tasks,
            settings.eval_data,
            folder,
            limit=settings.eval_limit,
            workers=settings.workers,
            offline=offline,
            fresh=True,
            progress=settings.progress,
        )
        if is_first():
            shutil.rmtree(folder)
        scores = {name: task.metrics["hit@1"] for name, task in result.tasks.items()}
        return {**scores, "mean": sum(scores.values()) / len(scores)}

    return score


def _fetch_evaluation(settings: RunSettings, offline: bool) -> None:
    """Find the data of the evaluations in the middle of the run: what is missing then would end it after hours."""
    find_rows(get_tasks(settings.eval_tasks), open_source(settings.eval_data, offline=offline))


def manifest_of(prepared: Prepared, command: str) -> dict[str, Any]:
    """What `mmeb.json` says: how to load the model, and what it was made of."""
    model, recipe = prepared.model, prepared.recipe
    options = {
        name: str(value) for name, value in asdict(model.options).items() if value is not None and name != "lora"
    }
    start = model.provenance
    return {
        "adapter": model.adapter,
        "options": {**recipe.options, **options},
        "base": start.get("base", start.get("checkpoint")),
        "base_revision": start.get("base_revision", start.get("revision")),
        "started_from": recipe.model,
        "temperature": recipe.temperature,
        "recipe": to_mapping(recipe),
        "data": [
            {
                "subset": subset.name,
                "pairs": len(subset),
                "repository": subset.source.repository,
                "revision": subset.source.revision,
                "kind": subset.source.kind,
                "fingerprint": subset.fingerprint,
            }
            for subset in prepared.subsets
        ],
        "trained_parameters": prepared.trainable.trained,
        "parameters": prepared.trainable.all,
        "command": command,
        "libraries": library_versions(),
        "python": platform.python_version(),
    }


def _without(skipped: int) -> str:
    return f" ({skipped:,} bad rows skipped)" if skipped else ""
