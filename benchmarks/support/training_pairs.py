"""Training pairs of photographs and texts as a user writes them down, the models that learn from them, and one step."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.support.checkpoints import write_clip, write_qwen2_vl
from benchmarks.support.photographs import write_photographs
from mmeb.data.train.dataset import TrainSubset, open_train
from mmeb.demo.vlm import demo_vlm_folder
from mmeb.models.base import EmbeddingModel
from mmeb.tasks import PLACEHOLDER
from mmeb.training.batch import MicroBatch, StepBatch
from mmeb.training.loader import StepLoader
from mmeb.training.recipe import Recipe
from mmeb.training.sampler import batches_of
from mmeb.training.start import start_model

QUESTION = "\nWhat does the picture show?\n"
OPTIONS = {"clip": {}, "qwen2-vl": {"image_resolution": "none", "positions": "2d"}}
_WORDS = ("river", "bridge", "tower", "boat", "child", "horse", "window", "street", "cloud", "table", "apple", "train")


def write_pairs(folder: Path, count: int, *, answers: int | None = None, question: str = QUESTION) -> Path:
    """A JSONL file of photographs, each another one, with a text that answers; its path.

    Every text is another one, or one of `answers`, as in classification.
    """
    rng = np.random.default_rng(0)
    images = write_photographs(folder / "photographs", count)
    texts = [" ".join(rng.choice(_WORDS, 6)) + f" {number}" for number in range(answers or count)]
    rows = [
        {
            "qry": PLACEHOLDER + question,
            "qry_image_path": image.relative_to(folder).as_posix(),
            "pos_text": texts[number % len(texts)],
        }
        for number, image in enumerate(images)
    ]
    path = folder / ("pairs.jsonl" if answers is None else f"{answers}-answers.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_model(folder: Path, name: str) -> tuple[str, Path]:
    """The adapter and the folder of a model with random weights: `clip` or `qwen2-vl` with a size, or the demo's."""
    family, _, size = name.partition("/")
    match family:
        case "clip":
            return family, write_clip(folder / name.replace("/", "-"), size)
        case "qwen2-vl":
            return family, write_qwen2_vl(folder / name.replace("/", "-"), size)
    return "qwen2-vl", demo_vlm_folder()


def recipe_of(adapter: str, model: Path, batch_size: int, micro_batch_size: int | None, steps: int = 1) -> Recipe:
    """All weights in float32, at a constant learning rate."""
    return Recipe(
        adapter,
        model=str(model),
        options=OPTIONS[adapter],
        dtype="float32",
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        steps=steps,
        learning_rate=1e-4,
        warmup_steps=0,
        schedule="constant",
        temperature=0.05,
        mask_equal_targets=False,
        seed=0,
    )


def start(recipe: Recipe, pairs: Path) -> tuple[EmbeddingModel, list[TrainSubset]]:
    return start_model(recipe, device="cpu", offline=True)[0], open_train(pairs)


def first_step(model: EmbeddingModel, subsets: Sequence[TrainSubset], recipe: Recipe) -> StepBatch:
    """The first step of a run, its micro-batches prepared as they are asked for."""
    return next(iter(StepLoader(model, subsets, recipe, batches_of(subsets, replace(recipe, steps=1)))))


def input_bytes(micro_batches: Iterable[MicroBatch]) -> int:
    """What the inputs of micro-batches take in memory: pixels above all."""
    return sum(each.inputs.n_bytes for each in micro_batches if each.inputs is not None)


def save_nothing(folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
    """A run whose model nobody wants."""


def read_rows(pairs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
