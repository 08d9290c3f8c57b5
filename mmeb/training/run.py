"""From a data folder and settings to a trained model on disk, with its recipe."""

import json
import os
import shlex
import time
from pathlib import Path

import torch

from mmeb.data.train import TRAIN_SUBSETS, load_train
from mmeb.errors import MmebError
from mmeb.evaluation.provenance import library_versions
from mmeb.models.demo import DemoConfig, DemoModel
from mmeb.models.registry import find_entry, load_model
from mmeb.results.atomic import write_text
from mmeb.training.config import TrainConfig
from mmeb.training.recipe import Recipe
from mmeb.training.settings import RunSettings
from mmeb.training.trainer import train

RECIPE = "recipe.json"


def train_demo(
    config: TrainConfig,
    data: str = "demo",
    subsets: str = "all",
    limit: int | None = None,
    start: str | None = None,
    *,
    progress: bool = False,
) -> float:
    """Train the demo's model and write it to `config.output`; returns the last logged loss.

    It starts from the model that `start` names, or from random weights. `recipe.json` beside the weights holds the
    commands that make them again, the first one first. Raises MmebError for a mistake in the
    settings, data that is missing, and an output folder that can't be written.
    """
    started = time.monotonic()
    names = TRAIN_SUBSETS if subsets == "all" else tuple(name.strip() for name in subsets.split(","))
    _check_output(config.output)
    folder = _folder(data)
    pairs = [load_train(name, folder, split=config.split, limit=limit, seed=config.seed) for name in names]
    model, earlier = _start(start, config.seed)
    plan = Recipe(
        "demo",
        batch_size=config.batch_size,
        temperature=config.temperature,
        steps=config.steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        schedule="cosine",
        weight_decay=config.weight_decay,
        seed=config.seed,
    )
    settings = RunSettings(config.output, save_every=None, progress=progress)
    losses = [line["loss"] for line in train(model, pairs, plan, settings, model.save).log]
    recipe = {
        "commands": [*earlier, _command(config, data, subsets, limit, start)],
        "data": _data_version(folder),
        "subsets": list(names),
        "pairs": sum(map(len, pairs)),
        "settings": config.to_json(),
        "loss": losses,
        "seconds": round(time.monotonic() - started),
        "libraries": library_versions(),
    }
    write_text(config.output / RECIPE, json.dumps(recipe, indent=2) + "\n")
    return losses[-1]


def _check_output(folder: Path) -> None:
    """Raise MmebError, before any work is done, where the folder can't be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise MmebError(f"{folder} can't be written to: give another folder with --output.")


def _start(name: str | None, seed: int) -> tuple[DemoModel, list[str]]:
    """The model to train, and the commands that made it."""
    if name is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return DemoModel.new(DemoConfig(), seed=seed, device=device), []
    model = load_model(name, adapter="demo", dtype="float32")
    if not isinstance(model, DemoModel):
        raise MmebError(f"{name} is no model of the adapter demo.")
    recipe = Path(find_entry(name).source) / RECIPE
    return model, json.loads(recipe.read_text(encoding="utf-8"))["commands"] if recipe.is_file() else []


def _folder(data: str) -> Path:
    if data == "demo":
        from mmeb.data.demo import demo_folder

        return demo_folder()
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise MmebError(f"There is no folder {folder}: --data takes demo, or a folder that holds MMEB-train.")
    return folder


def _data_version(folder: Path) -> dict[str, object]:
    from mmeb.data.demo import DEMO_MARKER

    marker = folder / DEMO_MARKER
    return {"folder": folder.name, **(json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {})}


def _command(config: TrainConfig, data: str, subsets: str, limit: int | None, start: str | None) -> str:
    settings = {
        "adapter": "demo",
        "model": start,
        "data": data,
        "subsets": subsets,
        "limit": limit,
        "output": config.output,
    }
    named = {**settings, **config.to_json()}
    del named["weight_decay"]
    given = [
        f"--{name.replace('_', '-')} {shlex.quote(str(value))}" for name, value in named.items() if value is not None
    ]
    return " ".join(["mmeb train", *given])
