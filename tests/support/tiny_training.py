"""A small training run, in this process, or in one of its own that may be killed or have others beside it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from mmeb.data.train.dataset import open_train
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints import lora
from mmeb.models.loading import load_model
from mmeb.training.loop import TrainOutcome, train
from mmeb.training.recipe import Recipe, RunSettings
from support.paths import GOLDEN, ROOT

_CHECKPOINTS = GOLDEN / "ckpt"
RECIPE = Recipe(
    "demo", batch_size=4, steps=4, learning_rate=1e-3, warmup_steps=2, temperature=0.05, schedule="cosine", seed=0
)

Evaluate = Callable[[int], Mapping[str, float]]


def demo_model() -> DemoModel:
    return DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))


def lora_model() -> EmbeddingModel:
    """A tiny Qwen2-VL under a LoRA with dropout."""
    model = load_model(
        str(_CHECKPOINTS / "qwen2_vl"), adapter="qwen2-vl", dtype="float32", options={"image_resolution": "low"}
    )
    lora.create(model.module, ["q_proj", "v_proj"], rank=4, alpha=8, dropout=0.1, dora=False, seed=0)
    lora.train_only(model.module)
    return model


def run(
    output: Path,
    recipe: Recipe = RECIPE,
    model: EmbeddingModel | None = None,
    evaluate: Evaluate | None = None,
    subsets: tuple[str, ...] = ("WebQA", "VOC2007"),
    **settings: Any,
) -> TrainOutcome:
    """Train on 16 pairs of each subset, without a bar; by default a step is a line of the log."""
    model = model or demo_model()
    pairs = open_train("demo", subsets, limit=16)
    run_settings = RunSettings(
        output, **{"log_every": 1, "workers": 0, "progress": False, "save_every": None} | settings
    )
    return train(model, pairs, recipe, run_settings, model.save, evaluate)


def losses(output: Path) -> dict[int, float]:
    """The loss by step, from the log."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def run_elsewhere(output: Path, processes: int = 0, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own, or under torchrun. `arguments` are those of `_main`."""
    launcher = [] if not processes else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *launcher, "-m", "support.tiny_training", str(output), json.dumps(arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)


def shard_on_the_cpu() -> None:
    """Pass the CPU's processes off as those of an accelerator: for these alone the library sets FSDP up."""
    prepare = PartialState.__init__

    def pretend(state: PartialState, *arguments: Any, **options: Any) -> None:
        prepare(state, *arguments, **options)
        if state.distributed_type is DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.MULTI_XPU

    PartialState.__init__ = pretend


_DEFAULTS: dict[str, Any] = {"recipe": {}, "settings": {}, "model": "demo", "kill_after": None}


def _main(output: Path, recipe: dict[str, Any], settings: dict[str, Any], model: str, kill_after: int | None) -> None:
    def kill(step: int) -> Mapping[str, float]:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    embedder = {"demo": demo_model, "lora": lora_model}[model]()
    if "fsdp" in settings:
        shard_on_the_cpu()
        settings["fsdp"] = Path(settings["fsdp"])
    if kill_after is not None:
        settings["eval_every"] = kill_after
    run(output, replace(RECIPE, **recipe), embedder, kill if kill_after is not None else None, **settings)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), **_DEFAULTS | json.loads(sys.argv[2]))
