"""`mmeb train`: from the demo's training part to a model on disk that can be scored."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

import mmeb
from mmeb.cli.train import command
from mmeb.data.demo import demo_folder
from mmeb.data.train import load_train
from mmeb.errors import MmebError
from mmeb.models.demo import DemoConfig, DemoModel
from mmeb.training.config import TrainConfig
from mmeb.training.trainer import train

_SMALL = ["--adapter", "demo", "--limit", "16", "--steps", "3", "--batch-size", "8", "--subsets", "VOC2007,CIRR"]


def _train(output: Path, *more: str) -> Result:
    return CliRunner().invoke(command, [*_SMALL, "--output", str(output), *more], catch_exceptions=False)


def test_its_model_can_be_scored(tmp_path: Path) -> None:
    result = _train(tmp_path / "model")
    assert result.exit_code == 0, result.output
    model = mmeb.load_model(str(tmp_path / "model"), adapter="demo")
    scores = mmeb.evaluate(model, "VOC2007", "demo", tmp_path / "run", limit=5)
    assert scores.tasks["VOC2007"].num_pred == 5


def test_the_recipe_holds_the_commands_and_the_data(tmp_path: Path) -> None:
    _train(tmp_path / "first", "--seed", "3")
    _train(tmp_path / "second", "--model", str(tmp_path / "first"))
    recipe = json.loads((tmp_path / "second" / "recipe.json").read_text())
    first, second = recipe["commands"]
    assert "--subsets VOC2007,CIRR --limit 16" in first
    assert "--seed 3" in first
    assert f"--model {tmp_path / 'first'}" in second
    assert recipe["data"]["seed"] == 0
    assert recipe["pairs"] == 32


def test_it_goes_on_from_a_model(tmp_path: Path) -> None:
    _train(tmp_path / "first")
    _train(tmp_path / "second", "--model", str(tmp_path / "first"), "--learning-rate", "1e-9")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        _train(tmp_path / name, "--seed", seed)
    first, second, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    pairs = load_train("WebQA", demo_folder(), limit=64)
    model = DemoModel.new(DemoConfig(dim=32, layers=2), seed=0, device=torch.device("cpu"))
    config = TrainConfig(tmp_path, steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5)
    losses = train(model, [pairs], config)
    assert len(losses) == 6
    assert losses[-1] < 0.7 * losses[0]
    assert not model.module.training


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    pairs = load_train("SUN397", demo_folder(), limit=16)
    model = DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        next(model.module.parameters()).fill_(float("nan"))
    with pytest.raises(MmebError, match="no longer finite"):
        train(model, [pairs], TrainConfig(tmp_path, steps=2, batch_size=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "1"], "batch size is to be 2 or more"),
        (["--steps", "0"], "steps is to be above 0"),
        (["--split", "train"], "There is no split 'train'"),
        (["--batch-size", "17"], "16 pairs, which is less than a batch of 17"),
        (["--subsets", "ImageNet-R"], "not one of MMEB-train's 20 subsets"),
        (["--data", "nowhere"], "no folder nowhere"),
    ],
)
def test_a_setting_that_cannot_work_is_said_plainly(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(MmebError, match=message):
        _train(tmp_path, *options)


def test_an_output_that_is_a_file_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmebError, match="can't be written to"):
        _train(tmp_path / "file")
