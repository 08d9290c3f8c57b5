"""`mmeb train` as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support.command import mmeb
from support.paths import GOLDEN

from mmeb.cli.main import cli
from mmeb.cli.train import command
from mmeb.errors import MmebError
from mmeb.training.recipe import find_recipe

CKPT = GOLDEN / "ckpt"
SMALL = ["--data", "demo", "--subsets", "VOC2007,CIRR", "--limit", "8", "--steps", "2", "--batch-size", "4"]


def train(*arguments: Any) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)


def test_an_adapter_is_all_it_takes_and_the_result_is_scored_and_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lora = ("--adapter", "qwen2-vl", "--base", CKPT / "qwen2_vl", "--option", "image_resolution=low")
    done = mmeb("train", *lora, *SMALL, "--workers", "0", "--option", "max_length=2048")
    assert done.code == 0, done.err
    assert "language_model.layers.*.self_attn.q_proj x 2" in done.out
    assert "parameters are trained" in done.out
    assert "mmeb run --model runs/train/qwen2-vl" in done.out
    folder = str(tmp_path / "runs/train/qwen2-vl")
    score = ["run", "--model", folder, "--tasks", "VOC2007", "--data", "demo", "--limit", "2", "--workers", "0"]
    CliRunner().invoke(cli, [*score, "--output", str(tmp_path / "scores")], catch_exceptions=False)
    assert json.loads((tmp_path / "scores/VOC2007.json").read_text())["metrics"]["num_pred"] == 2
    merged = train("merge", folder, "--output", tmp_path / "merged")
    assert "The largest difference" in merged.output
    assert (tmp_path / "merged/model.safetensors").is_file()


@pytest.mark.parametrize("flag", ["--recipe", "--config"])
def test_a_file_is_taken_back_as_show_prints_it(flag: str, tmp_path: Path) -> None:
    shown = train("--recipe", "phi35v-24gb", "batch_size=128", "--show").output
    (tmp_path / "recipe.yaml").write_text(shown)
    assert train(flag, tmp_path / "recipe.yaml", "--show").output == shown


def test_settings_are_changed_wherever_they_stand() -> None:
    shown = train("steps=3", "--adapter", "phi35v", "lora.rank=16", "--set", "symmetric=true", "--show").output
    assert {"steps: 3", "  rank: 16", "symmetric: true"} <= set(shown.splitlines())


def test_flags_are_settings_of_the_recipe(tmp_path: Path) -> None:
    flags = {
        "--model": "x/y",
        "--model-revision": "main",
        "--subsets": "CIRR,NIGHTS",
        "--split": "diverse_instruction",
        "--limit": 7,
        "--steps": 11,
        "--batch-size": 128,
        "--interleave": 32,
        "--sub-batch-size": 3,
        "--sub-batch-tokens": 500,
        "--learning-rate": 1e-4,
        "--warmup-steps": 0,
        "--temperature": 0.05,
        "--seed": 0,
        "--lora-rank": 16,
        "--lora-alpha": 32,
        "--lora-targets": "qkv_proj,o_proj",
        "--dtype": "float32",
        "--option": "num_crops=16",
        "--set": "lora.dora=false",
    }
    given = [str(part) for pair in flags.items() for part in pair]
    shown = train("--adapter", "phi35v", *given, "--freeze-tower", "--no-gradient-checkpointing", "--show").output
    (tmp_path / "recipe.yaml").write_text(shown)
    recipe = find_recipe(tmp_path / "recipe.yaml").recipe
    assert (recipe.model, recipe.model_revision, recipe.subsets) == ("x/y", "main", ("CIRR", "NIGHTS"))
    assert (recipe.split, recipe.limit, recipe.steps, recipe.batch_size) == ("diverse_instruction", 7, 11, 128)
    assert (recipe.batches, recipe.interleave) == ("interleaved", 32)
    assert (recipe.micro_batch_size, recipe.micro_batch_tokens) == (3, 500)
    assert (recipe.learning_rate, recipe.warmup_steps, recipe.temperature, recipe.seed) == (1e-4, 0, 0.05, 0)
    assert recipe.lora is not None
    assert (recipe.lora.rank, recipe.lora.alpha, recipe.lora.dora) == (16, 32, False)
    assert recipe.lora.targets == ("qkv_proj", "o_proj")
    assert (recipe.dtype, recipe.freeze_tower, recipe.gradient_checkpointing) == ("float32", True, False)
    assert recipe.options == {"num_crops": "16", "max_length": "256"}


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "model"
    done = train("--adapter", "clip", "--model", CKPT / "clip", *SMALL, "--output", output, "--dry-run")
    assert "2 subsets, 16 pairs" in done.output
    assert "(100.00%)" in done.output
    assert "0.50 epochs" in done.output
    assert not output.exists()


def test_the_folder_says_which_command_made_it(tmp_path: Path) -> None:
    output = tmp_path / "model"
    train("--adapter", "demo", *SMALL, "--workers", "0", "--output", output)
    command_line = json.loads((output / "mmeb.json").read_text())["command"]
    assert command_line.startswith("mmeb train --adapter demo --data demo --subsets VOC2007,CIRR")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--adapter"),
        (["--adapter", "phi35"], "There is no adapter 'phi35': did you mean phi35v"),
        (["--recipe", "phi35v-24g"], "did you mean phi35v-24gb"),
        (["--adapter", "demo", "--config", "x.yaml"], "There is no file x.yaml"),
        (["--recipe", "demo", "--config", "x.yaml"], "leave one of them out"),
        (["--adapter", "demo", "--set", "stepz=3"], "did you mean steps?"),
        (["--adapter", "qwen2-vl", "--set", "options.max_length=null"], "options.max_length must be text"),
        (["--adapter", "demo", "--lora-rank", "4"], "name modules by lora.targets"),
        (["--adapter", "demo", "--lora-rank", "4", "--lora-targets", "a"], "demo takes no LoRA"),
        (["--adapter", "demo", "--batch-size", "1"], "batch size must be 2 or more"),
        (["--adapter", "demo", "--steps", "0"], "steps must be above 0"),
        (["--adapter", "demo", "--keep", "0"], "--keep must be 1 or more"),
        (["--adapter", "demo", "--subsets", "ImageNet-R"], "ImageNet-R"),
        (["--adapter", "demo", "--data", "nowhere"], "nowhere"),
        (["--adapter", "demo", "--split", "none"], "There is no split 'none'"),
        (["--adapter", "demo", "--option", "text=plain"], "no option 'text'"),
    ],
)
def test_a_mistake_is_said_plainly(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(MmebError) as error:
        train("--data", "demo", "--output", tmp_path / "model", *arguments)
    assert message in str(error.value)
    assert not (tmp_path / "model").exists()
