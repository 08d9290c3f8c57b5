"""Checkpoints: complete or not there, the last few, of one run alone; and a run resumes as if uninterrupted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny_training import RECIPE, demo_model, lora_model, losses, run, run_elsewhere

import mmeb
from mmeb.errors import MmebError
from mmeb.training import checkpoint

TEN = replace(RECIPE, steps=10)


def names(output: Path) -> list[str]:
    return [path.name for path in checkpoint.checkpoints(output)]


def files(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten steps that was killed at step 7."""
    output = tmp_path_factory.mktemp("broken") / "run"
    killed = run_elsewhere(output, recipe={"steps": 10}, settings={"save_every": 3}, model="lora", kill_after=7)
    assert killed.returncode == -9, killed.stderr
    return output


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """What a run that broke off after step 2 of 4 leaves."""
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", save_every=2, eval_every=3, evaluate=interrupt)
    return tmp_path / "run"


def interrupt(step: int) -> dict[str, float]:
    raise KeyboardInterrupt


def test_a_run_that_is_killed_goes_on_as_if_unbroken_with_dropout_on(broken: Path, tmp_path: Path) -> None:
    assert names(broken) == ["checkpoint-3", "checkpoint-6"]
    outcome = run(broken, TEN, lora_model(), save_every=3, resume=True)
    full = run(tmp_path / "full", TEN, lora_model())
    assert outcome.resumed == 6
    assert losses(broken) == losses(tmp_path / "full")
    assert [line["loss"] for line in outcome.log] == [line["loss"] for line in full.log]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (broken / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


def test_means_over_several_steps_are_those_of_the_unbroken_run(stopped: Path, tmp_path: Path) -> None:
    run(stopped, save_every=2, log_every=3, resume=True)
    run(tmp_path / "full", save_every=2, log_every=3)
    assert losses(stopped).items() >= {4: losses(tmp_path / "full")[4]}.items()


def test_a_checkpoint_is_a_model_that_is_scored_as_the_final_one_is(tmp_path: Path) -> None:
    run(tmp_path, save_every=4)
    end, there = (mmeb.load_model(str(tmp_path / name), adapter="demo").module for name in ("", "checkpoint-4"))
    assert all(map(torch.equal, end.state_dict().values(), there.state_dict().values()))


def test_the_last_few_checkpoints_stay(tmp_path: Path) -> None:
    run(tmp_path, replace(RECIPE, steps=9), save_every=2, keep=3)
    assert names(tmp_path) == ["checkpoint-6", "checkpoint-8", "checkpoint-9"]


def test_a_finished_run_leaves_its_own_files_alone(tmp_path: Path) -> None:
    run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "log.jsonl",
        "training.json",
    }


def test_a_checkpoint_that_lacks_a_part_is_none(stopped: Path) -> None:
    (stopped / "checkpoint-3").mkdir()
    (stopped / "checkpoint-3/model.safetensors").write_bytes(b"half")
    (stopped / ".checkpoint-3.part").mkdir()
    assert run(stopped, save_every=3, resume=True).resumed == 2
    assert names(stopped) == ["checkpoint-3", "checkpoint-4"]
    assert not list(stopped.glob(".*"))


def test_a_run_that_broke_off_after_its_last_step_only_writes_the_model(tmp_path: Path) -> None:
    run(tmp_path, save_every=4)
    expected = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    record = json.loads((tmp_path / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps(record | {"finished": False}))
    outcome = run(tmp_path, save_every=4, resume=True)
    assert (outcome.resumed, outcome.steps) == (4, 4)
    assert (tmp_path / "model.safetensors").read_bytes() == expected


def test_a_log_line_that_was_cut_off_is_written_again(stopped: Path, tmp_path: Path) -> None:
    with (stopped / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    run(stopped, save_every=2, resume=True)
    assert list(losses(stopped)) == [1, 2, 3, 4]


def test_with_nothing_to_go_on_from_a_run_begins_and_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, resume=True).resumed == 0
    assert "has no checkpoint: the run begins anew" in capfd.readouterr().err


def test_a_folder_with_a_run_is_refused_and_stays_as_it_is(stopped: Path) -> None:
    before = files(stopped)
    with pytest.raises(MmebError, match="up to checkpoint-2: go on with it by --resume"):
        run(stopped)
    assert files(stopped) == before


def test_a_finished_run_is_refused_with_resume_too(tmp_path: Path) -> None:
    run(tmp_path)
    before = files(tmp_path)
    for resume in (False, True):
        with pytest.raises(MmebError, match="is finished: choose another --output"):
            run(tmp_path, resume=resume)
    assert files(tmp_path) == before


def test_a_folder_with_another_model_is_refused(tmp_path: Path) -> None:
    demo_model().save(tmp_path)
    with pytest.raises(MmebError, match="a model that is not of a training run"):
        run(tmp_path)


def test_a_checkpoint_of_another_recipe_is_refused_by_what_differs(stopped: Path) -> None:
    before = files(stopped)
    with pytest.raises(MmebError, match=r"another training run \(recipe.learning_rate: 0.001 there, 0.002 now\)"):
        run(stopped, replace(RECIPE, learning_rate=2e-3), resume=True)
    assert files(stopped) == before


def test_a_checkpoint_of_an_earlier_version_is_refused_as_such(stopped: Path) -> None:
    record = stopped / "checkpoint-2/training.json"
    content = json.loads(record.read_text())
    del content["identity"]["format"]
    record.write_text(json.dumps(content))
    with pytest.raises(MmebError, match="checkpoint-2 was written by another version of mmeb"):
        run(stopped, resume=True)


def test_a_checkpoint_of_other_data_is_refused_by_what_differs(stopped: Path) -> None:
    with pytest.raises(MmebError, match=r"data.CIRR: None there, '\w+' now"):
        run(stopped, subsets=("WebQA", "VOC2007", "CIRR"), resume=True)
