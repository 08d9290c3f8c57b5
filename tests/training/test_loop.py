"""The trainer: what it learns, what it logs, and what it leaves as it was; with one process and with two."""

import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate.tracking import GeneralTracker, register_tracker_class
from safetensors.torch import load_file
from support.tiny_training import RECIPE, demo_model, lora_model, losses, run, run_elsewhere

from mmeb.errors import MmebError
from mmeb.training import log

MEASURES = {
    "step",
    "loss",
    "accuracy",
    "mean_rank",
    "margin",
    "masked",
    "grad_norm",
    "learning_rate",
    "temperature",
    "items_per_second",
    "tokens_per_second",
    "skipped_rows",
}


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_training_lowers_the_loss_and_raises_the_accuracy(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=60, batch_size=8, learning_rate=3e-3, warmup_steps=5)
    outcome = run(tmp_path, recipe, subsets=("WebQA",), log_every=10)
    first, last = outcome.log[0], outcome.log[-1]
    assert last["loss"] < 0.7 * first["loss"]
    assert last["accuracy"] > first["accuracy"]


def test_a_line_of_the_log_has_every_measure(tmp_path: Path) -> None:
    outcome = run(tmp_path, log_every=3)
    assert [line["step"] for line in lines(tmp_path)] == [3, 4]
    assert all(line.keys() == MEASURES for line in lines(tmp_path))
    assert [line["loss"] for line in outcome.log] == [line["loss"] for line in lines(tmp_path)]
    assert all(line["tokens_per_second"] > line["items_per_second"] > 0 for line in lines(tmp_path))


def test_measures_are_means_over_the_steps_since_the_line_before(tmp_path: Path) -> None:
    run(tmp_path / "each")
    run(tmp_path / "both", log_every=2)
    each = losses(tmp_path / "each")
    assert losses(tmp_path / "both") == pytest.approx({2: (each[1] + each[2]) / 2, 4: (each[3] + each[4]) / 2})


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("linear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0, 0.5, 1, 0.853553, 0.5, 0.146447]),
        ("constant", [0, 0.5, 1, 1, 1, 1]),
    ],
)
def test_the_learning_rate_rises_and_falls_by_the_schedule(schedule: Any, rates: list[float], tmp_path: Path) -> None:
    run(tmp_path, replace(RECIPE, steps=6, schedule=schedule))
    expected = [rate * RECIPE.learning_rate for rate in rates]
    assert [line["learning_rate"] for line in lines(tmp_path)] == pytest.approx(expected, rel=1e-5)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=2, warmup_steps=0, max_grad_norm=1e-12, weight_decay=0.0)
    model, before = demo_model(), demo_model().module.state_dict()
    run(tmp_path, recipe, model)  # AdamW's own epsilon, 1e-8, keeps such a gradient from moving anything
    after = model.module.state_dict()
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    assert lines(tmp_path)[0]["grad_norm"] > 1e-6


def test_workers_do_not_change_the_losses(tmp_path: Path) -> None:
    run(tmp_path / "none", workers=0)
    run(tmp_path / "two", workers=2)
    assert losses(tmp_path / "none") == losses(tmp_path / "two")


def test_frozen_weights_stay_bit_identical_and_trained_ones_move(tmp_path: Path) -> None:
    model = lora_model()
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    run(tmp_path, model=model)
    moved = {name for name, tensor in model.module.state_dict().items() if not torch.equal(tensor, before[name])}
    trained = {name for name, parameter in model.module.named_parameters() if parameter.requires_grad}
    assert moved == trained


def test_a_learned_temperature_moves_and_is_not_decayed(tmp_path: Path) -> None:
    run(tmp_path, replace(RECIPE, steps=6, learn_temperature=True, weight_decay=100.0))
    temperatures = [line["temperature"] for line in lines(tmp_path)]
    assert len(set(temperatures)) == 5  # the first step has a learning rate of 0
    assert temperatures == pytest.approx([RECIPE.temperature] * 6, rel=0.01)  # decay would take a tenth off each step


def test_the_model_ends_in_evaluation_mode_and_handlers_are_put_back(tmp_path: Path) -> None:
    model, handler = demo_model(), signal.getsignal(signal.SIGTERM)
    run(tmp_path, model=model)
    assert not any(module.training for module in model.module.modules())
    assert signal.getsignal(signal.SIGTERM) is handler


def test_scores_are_taken_in_evaluation_mode_while_training_and_logged(tmp_path: Path) -> None:
    model = demo_model()
    seen: list[tuple[int, bool]] = []

    def evaluate(step: int) -> Mapping[str, float]:
        seen.append((step, model.module.training))
        return {"WebQA": step / 10}

    run(tmp_path / "scored", model=model, evaluate=evaluate, eval_every=2)
    assert seen == [(2, False), (4, False)]
    scores = [line for line in lines(tmp_path / "scored") if "loss" not in line]
    assert scores == [{"step": 2, "eval/WebQA": 0.2}, {"step": 4, "eval/WebQA": 0.4}]
    run(tmp_path / "plain")
    assert losses(tmp_path / "scored") == losses(tmp_path / "plain")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"report_to": ("nowhere",)}, "nowhere"),
        ({"fsdp": Path("nowhere.json")}, "nowhere.json can't be read: No such file or directory"),
        ({"fsdp": Path(__file__)}, "not valid JSON"),
        ({"deepspeed": Path("nowhere.json")}, "nowhere.json can't be read: No such file or directory"),
        ({"save_every": 0}, "--save-every must be 1 or more, not 0"),
        ({"workers": -1}, "--workers must be 0 or more, not -1"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=message):
        run(tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("setting", ["fsdp", "deepspeed"])
def test_a_configuration_that_is_no_json_object_is_refused(setting: str, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    settings: dict[str, Any] = {setting: tmp_path / "list.json"}
    with pytest.raises(MmebError, match="must hold a JSON object"):
        run(tmp_path / "run", **settings)


def test_one_process_has_nobody_to_share_a_model_with(tmp_path: Path) -> None:
    (tmp_path / "fsdp.json").write_text("{}")
    with pytest.raises(MmebError, match="start them with torchrun"):
        run(tmp_path / "run", fsdp=tmp_path / "fsdp.json")


class Tracker(GeneralTracker):  # type: ignore[misc]
    """One that a user wrote."""

    name = "tests"
    requires_logging_directory = False
    logged: ClassVar[list[tuple[int, dict[str, float]]]] = []
    finished = 0

    def __init__(self, run_name: str, **_: Any) -> None:
        super().__init__()

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        assert values["temperature"] == "0.05"

    def log(self, values: dict[str, float], step: int, **_: Any) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        type(self).finished += 1


def test_a_tracker_gets_each_line(tmp_path: Path) -> None:
    register_tracker_class(Tracker)
    run(tmp_path, report_to=("tests",), evaluate=lambda step: {"WebQA": 0.5}, eval_every=4)
    assert [(step, values["loss"]) for step, values in Tracker.logged[:-1]] == list(losses(tmp_path).items())
    assert Tracker.logged[-1] == (4, {"eval/WebQA": 0.5})
    assert Tracker.finished == 1


def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="can't be reported to aim: install its package"):
        run(tmp_path, report_to=("aim",))


def test_negatives_that_are_too_easy_are_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log, "EASY_STEPS", 2)
    monkeypatch.setattr(log, "EASY_ACCURACY", 0.0)  # whatever the accuracy: too easy
    run(tmp_path, replace(RECIPE, steps=8))
    warnings = [line for line in lines(tmp_path) if "warning" in line]
    assert [line["step"] for line in warnings] == [3]
    assert capsys.readouterr().err.count("the negatives are too easy") == 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of a run in micro-batches."""
    output = tmp_path_factory.mktemp("alone")
    run(output, replace(RECIPE, micro_batch_size=2), lora_model(), save_every=2)
    return output


def test_two_processes_train_as_one_and_the_first_alone_writes(alone: Path, tmp_path: Path) -> None:
    recipe, settings = {"micro_batch_size": 2}, {"save_every": 2}
    two = run_elsewhere(tmp_path, processes=2, recipe=recipe, settings=settings, model="lora")
    assert two.returncode == 0, two.stderr
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-5)
    assert names(tmp_path) == names(alone)
    assert len(lines(tmp_path)) == len(lines(alone))


def test_sharded_weights_train_as_whole_ones_and_are_saved_whole(alone: Path, tmp_path: Path) -> None:
    (tmp_path / "fsdp.json").write_text(json.dumps({"transformer_layer_cls_to_wrap": ["Qwen2VLDecoderLayer"]}))
    output = tmp_path / "run"
    settings = {"save_every": 2, "fsdp": str(tmp_path / "fsdp.json")}
    two = run_elsewhere(output, processes=2, recipe={"micro_batch_size": 2}, settings=settings, model="lora")
    assert two.returncode == 0, two.stderr
    assert losses(output) == pytest.approx(losses(alone), rel=1e-5)
    assert names(output) == names(alone)
    ours, full = (load_file(folder / "adapter_model.safetensors") for folder in (output, alone))
    assert all(torch.allclose(ours[name], full[name], atol=1e-6) for name in full)
    # Its checkpoint is that of any number of processes: one takes it up.
    (output / "training.json").unlink()
    shutil.rmtree(output / "checkpoint-4")
    run(output, replace(RECIPE, micro_batch_size=2), lora_model(), resume=True)
    assert losses(output) == pytest.approx(losses(alone), rel=1e-5)


def names(output: Path) -> set[str]:
    return {str(path.relative_to(output)) for path in output.rglob("*")}
