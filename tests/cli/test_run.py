"""`mmeb run` as a user types it: from an empty cache against the stand-in hub, again offline, and with mistakes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support.command import mmeb, mmeb_process, python
from support.hub import commit_of, serve
from support.official import write_official
from support.paths import GOLDEN

from mmeb.tasks import TASKS

CLIP = "openai/clip-vit-large-patch14"


@pytest.fixture(scope="module")
def eval_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("official") / "MMEB-eval", rows=20, candidates=20)


@pytest.fixture(scope="module")
def hub_run(tmp_path_factory: pytest.TempPathFactory, eval_folder: Path) -> dict[str, Path]:
    """`mmeb run --model clip-vit-l14 --tasks all`, nothing else said, from an empty cache."""
    cwd, home = tmp_path_factory.mktemp("cwd"), tmp_path_factory.mktemp("home")
    with serve({"datasets/TIGER-Lab/MMEB-eval": eval_folder, CLIP: GOLDEN / "ckpt" / "clip"}) as hub:
        command = ("run", "--model", "clip-vit-l14", "--tasks", "all")
        done = mmeb_process(*command, cwd=cwd, env={"HF_ENDPOINT": hub, "HF_HOME": home})
    assert done.code == 0, done.err
    (cwd / "table.txt").write_text(done.out)
    return {"cwd": cwd, "home": home}


def test_one_command_downloads_runs_and_prints_all_tasks_and_means(hub_run: dict[str, Path]) -> None:
    table = (hub_run["cwd"] / "table.txt").read_text()
    assert all(f"\n{task.name} " in table for task in TASKS)
    for group in ("classification", "VQA", "retrieval", "grounding", "IND", "OOD", "overall"):
        assert group.lower() in table.lower()


def test_the_commits_of_model_and_data_are_in_the_provenance(hub_run: dict[str, Path]) -> None:
    results = json.loads((hub_run["cwd"] / "runs/clip-vit-l14/results.json").read_text())
    assert set(results["metrics"]["image"]) == {task.name for task in TASKS}
    provenance = results["provenance"]
    assert provenance["data"]["kind"] == "hub"
    assert provenance["data"]["revision"] == commit_of("datasets/TIGER-Lab/MMEB-eval")
    assert provenance["model"]["revision"] == commit_of(CLIP)


def test_offline_the_same_command_gives_the_same_scores_without_a_call(hub_run: dict[str, Path]) -> None:
    # The endpoint refuses connections: a call would fail the run.
    done = mmeb_process(
        *("run", "--model", "clip-vit-l14", "--tasks", "all", "--offline", "--output", "again", "--json"),
        cwd=hub_run["cwd"],
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": hub_run["home"]},
    )
    assert done.code == 0, done.err
    before = json.loads((hub_run["cwd"] / "runs/clip-vit-l14/results.json").read_text())
    assert json.loads(done.out)["metrics"] == before["metrics"]


def test_the_leaderboard_is_built_from_the_run(hub_run: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub_run["cwd"])
    for arguments in (("submit", "runs/clip-vit-l14"), ("build",)):
        done = mmeb("leaderboard", *arguments)
        assert done.code == 0, done.err
    table = pd.read_csv("leaderboard/table.csv")
    ours = table[table["model"] == "clip-vit-l14"]
    assert len(ours) == 1
    assert ours["overall"].item() == pytest.approx(ours[[task.name for task in TASKS]].mean(axis=1).item())


def test_two_processes_make_the_files_of_one_and_the_first_alone_speaks(tmp_path: Path) -> None:
    run = ("run", "--model", "demo", "--data", "demo", "--tasks", "VOC2007", "--save-embeddings", "--output")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mmeb")
    launched = python(*launcher, *run, tmp_path / "two")
    assert launched.code == 0, launched.err
    assert launched.out.count("VOC2007") == 1
    assert launched.err.count("are free on cpu") == 1
    assert mmeb(*run, tmp_path / "one").code == 0
    for name in ("VOC2007.safetensors", "VOC2007.ranks.parquet"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    assert json.loads((tmp_path / "two" / "run.json").read_text())["hardware"]["processes"] == 2


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = mmeb("run", "--model", "demo", "--tasks", "vqa", "--data", "demo", "--dry-run")
    assert done.code == 0, done.err
    assert "TextVQA" in done.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "demo", "--tasks", "VOC2077", "--data", "demo"], "did you mean VOC2007"),
        (["--model", "clip-vit-l41", "--data", "demo"], "clip-vit-l14"),
        (["--model", "demo", "--data", "no-such-folder"], "There is no folder"),
        (["--model", "demo", "--data", "demo", "--option", "fusion"], "KEY=VALUE"),
        (["--model", "demo", "--data", "demo", "--batch-size", "lots"], "batch size"),
        (["--model", "demo", "--data", "demo", "--dtype", "float7"], "float7"),
        (["--model", "demo", "--data", "demo", "--device", "tpu7"], "tpu7"),
        (["--model", "demo", "--tasks", "VOC2007", "--data", "demo", "--output", "/proc/x"], "can't be written"),
    ],
)
def test_a_mistake_is_one_plain_sentence_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = mmeb("run", *arguments)
    assert done.code == 2
    assert sentence in done.err


def test_a_hub_that_cannot_be_reached_is_said_with_the_way_out(tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": tmp_path / "home"}
    done = mmeb_process("run", "--model", "demo", cwd=tmp_path, env=nowhere)
    assert done.code == 2
    assert "--data demo" in done.err
    assert "Traceback" not in done.err


def test_a_full_disk_is_a_plain_error_and_loses_no_finished_task(tmp_path: Path) -> None:
    command = ["run", "--model", "demo", "--data", "demo", "--output", tmp_path / "out", "--workers", "0", "--tasks"]
    assert mmeb(*command, "VOC2007").code == 0
    # A limit on the size of files stands for a full disk: writing past it fails with an error, not a signal. It would
    # hold for the workers' shared memory too, so there are none.
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from mmeb.cli.main import main; main(sys.argv[1:])"
    )
    command.append("VOC2007,WebQA")
    done = python("-c", code, *command)
    assert done.code == 2, done.err
    assert "can't be written" in done.err
    assert (tmp_path / "out" / "VOC2007.json").exists()
    assert not list((tmp_path / "out").glob("*.part"))
    assert mmeb(*command).code == 0
