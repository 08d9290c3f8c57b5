"""`mmeb verify` as a user calls it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN

from mmeb.cli.main import cli, main

CHECKPOINTS = GOLDEN / "ckpt"
CLIP, BLIP = str(CHECKPOINTS / "clip"), str(CHECKPOINTS / "blip")


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["verify", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


def test_a_sound_model_passes_and_the_table_says_so() -> None:
    code, output = run("--model", CLIP)

    assert code == 0
    assert "every check passed" in output
    assert "image beside a text matters" in output


def test_the_verdict_is_json_where_a_program_reads_it() -> None:
    code, output = run("--model", BLIP, "--json", "--option", "fusion=sum")

    verdict = json.loads(output)
    assert code == 0
    assert verdict["passed"] is True
    assert verdict["items"] == 20
    assert {check["name"] for check in verdict["checks"]} >= {"batch size", "order", "padding", "text matters"}


def test_a_saved_reference_is_met_again(tmp_path: Path) -> None:
    reference = tmp_path / "clip.safetensors"
    assert run("--model", CLIP, "--save-reference", str(reference))[0] == 0

    code, output = run("--model", CLIP, "--reference", str(reference), "--json")

    assert code == 0
    last = json.loads(output)["checks"][-1]
    assert (last["name"], last["passed"]) == ("reference", True)
    assert last["measured"] > 0.999999


def test_a_reference_of_another_model_is_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = tmp_path / "clip.safetensors"
    run("--model", CLIP, "--save-reference", str(reference))

    with pytest.raises(SystemExit) as exit_:
        main(["verify", "--model", BLIP, "--reference", str(reference)], standalone_mode=False)

    assert exit_.value.code == 2
    assert "is not of this model: its adapter is 'clip', here it is 'blip'" in capsys.readouterr().err


def test_a_model_whose_text_tower_is_dead_fails_with_exit_code_1_and_leaves_no_reference(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for file in Path(CLIP).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.token_embedding.weight"].zero_()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    reference = tmp_path / "reference.safetensors"

    code, output = run("--model", str(folder), "--save-reference", str(reference))

    assert code == 1
    assert not reference.exists()
    assert "text matters" in output
    assert "FAIL" in output
