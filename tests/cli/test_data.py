import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.command import Outcome, mmeb, mmeb_process, python
from support.hub import serve
from support.paths import GOLDEN

from mmeb.data.part import Part
from mmeb.data.source import open_source
from mmeb.demo import demo_folder
from mmeb.tasks import get_task

GOLDEN = GOLDEN / "data"
_COMMIT = "2f069730be515ea60778413777816b53e2d2a697"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder like TIGER-Lab/MMEB-eval, with images.zip."""
    folder = tmp_path / "official"
    shutil.copytree(GOLDEN / "MMEB-eval", folder)
    with zipfile.ZipFile(folder / "images.zip", "w") as target:
        for path in sorted((GOLDEN / "images").rglob("*.*")):
            target.write(path, path.relative_to(GOLDEN / "images"))
    return folder


def data(*arguments: str | Path, **environment: str) -> Outcome:
    """`mmeb data ARGUMENTS`; in a process of its own where it needs an environment, which libraries read on import."""
    return mmeb_process("data", *arguments, env=environment) if environment else mmeb("data", *arguments)


def test_what_was_downloaded_is_verified_without_a_call(official: Path, tmp_path: Path) -> None:
    with serve({"datasets/TIGER-Lab/MMEB-eval": official}) as hub:
        home = {"HF_ENDPOINT": str(hub), "HF_HOME": str(tmp_path / "home")}
        done = data("download", "--tasks", "CIRR,WebQA", "--json", **home)
        assert done.code == 0, done.err
        assert [Path(path).parts[-2] for path in json.loads(done.out)] == ["CIRR", "WebQA", _COMMIT]
        assert data("verify", "--tasks", "CIRR,WebQA", "--decode", **home).code == 0
        hub.requests.clear()
        assert data("verify", "--tasks", "CIRR", **home).code == 0
        assert data("download", "--tasks", "CIRR", "--offline", **home).code == 0
        assert data("download", "--tasks", "CIRR", **home, HF_HUB_OFFLINE="1").code == 0
        missing = data("download", "--tasks", "GQA", "--offline", **home)
        assert (missing.code, "local cache has no rows of GQA" in missing.err) == (2, True)
        assert hub.requests == []


def test_two_processes_fetch_a_file_once(official: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mmeb", "data", "download", "--tasks", "CIRR"]
    with serve({"datasets/TIGER-Lab/MMEB-eval": official}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": str(hub), "HF_HOME": str(tmp_path / "home")}
        both = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(2)]
        assert [process.wait() for process in both] == [0, 0]
        assert hub.sent["images.zip"] == (official / "images.zip").stat().st_size


def test_verify_lists_what_is_missing_and_exits_with_1(official: Path) -> None:
    (official / "images.zip").unlink()
    shutil.copytree(GOLDEN / "images", official / "images")
    (official / "images" / "set0" / "im000.png").unlink()
    done = data("verify", "--data", official, "--tasks", "WebQA,OK-VQA")
    assert done.code == 1
    assert "WebQA: set0/im000.png" in done.out
    found = json.loads(data("verify", "--data", official, "--tasks", "WebQA", "--json").out)
    assert [(report["task"], report["missing"], report["is_whole"]) for report in found] == [
        ("WebQA", ["set0/im000.png"], False)
    ]


@pytest.mark.parametrize("status", [401, 404])
def test_a_hub_that_refuses_is_one_sentence_without_traceback(official: Path, tmp_path: Path, status: int) -> None:
    with serve({"datasets/TIGER-Lab/MMEB-eval": official}) as hub:
        hub.status["datasets/TIGER-Lab/MMEB-eval"] = status
        done = data("download", "--tasks", "CIRR", HF_ENDPOINT=str(hub), HF_HOME=str(tmp_path / "home"))
    assert done.code == 2
    assert done.err.startswith("Error: The hub has no TIGER-Lab/MMEB-eval")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("variable", [{"ALL_PROXY": "socks5://127.0.0.1:9"}, {"ALL_PROXY": "socks://127.0.0.1:9"}])
def test_a_proxy_that_the_client_cannot_use_is_one_sentence(tmp_path: Path, variable: dict[str, str]) -> None:
    done = data(
        "download", "--tasks", "CIRR", HF_HOME=str(tmp_path / "home"), HF_ENDPOINT="http://hub.invalid", **variable
    )
    assert done.code == 2
    assert done.err.startswith("Error: The hub's client fails for TIGER-Lab/MMEB-eval")
    assert "Traceback" not in done.err


def test_the_demo_is_written_and_verified(tmp_path: Path) -> None:
    assert data("demo", "--output", tmp_path / "demo").code == 0
    done = data("verify", "--data", tmp_path / "demo")
    assert done.code == 0, done.out
    again = data("demo", "--output", tmp_path / "demo")
    assert (again.code, "is there already" in again.err) == (2, True)


def test_a_demo_that_cannot_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = data("demo", "--output", tmp_path / "file" / "demo")
    assert (done.code, "Not a directory" in done.err, "Traceback" in done.err) == (2, True, False)


def test_the_help_imports_neither_torch_nor_the_hub() -> None:
    script = "import sys, mmeb.cli.data; print([name for name in sys.modules if name in ('torch', 'huggingface_hub')])"
    assert python("-c", script).out == "[]\n"


def test_training_data_is_downloaded_by_subset(tmp_path: Path) -> None:
    with serve({"datasets/TIGER-Lab/MMEB-train": demo_folder() / "MMEB-train"}) as hub:
        home = {"HF_ENDPOINT": str(hub), "HF_HOME": str(tmp_path / "home")}
        done = data("download", "--train", "CIRR", "--json", **home)
        assert done.code == 0, done.err
        assert [Path(path).name for path in json.loads(done.out)] == ["original-00000-of-00001.parquet", "CIRR.zip"]
        refused = data("download", "--train", "GQA", **home)
        assert (refused.code, "GQA is out of distribution" in refused.err) == (2, True)


def test_custom_training_data_is_validated_and_findings_exit_with_1(tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"qry": "a", "pos_text": "b"}\n{"qry": "c", "pos_text": "d"}\n')
    (tmp_path / "bad.jsonl").write_text('{"qry": "a", "pos_text": ""}\n{"qry": "c", "pos_text": "d"}\n')
    good = data("validate", tmp_path / "good.jsonl")
    assert good.code == 0, good.err
    assert "good" in good.out
    both = data("validate", tmp_path / "good.jsonl", tmp_path / "bad.jsonl")
    assert both.code == 1
    assert "bad: error: rows without a positive: 1 (bad, row 0)" in both.out
    (report,) = json.loads(data("validate", tmp_path / "good.jsonl", "--json").out)
    assert (report["name"], report["rows"], report["errors"]) == ("good", 2, [])


def test_a_subset_without_rows_is_a_finding_beside_the_others(tmp_path: Path) -> None:
    shutil.copytree(demo_folder() / "MMEB-train" / "CIRR", tmp_path / "CIRR")
    done = data("validate", tmp_path, "--subsets", "CIRR,WebQA", "--sample", "0")
    assert done.code == 1
    assert "WebQA: error: the rows can't be used: 1" in done.out


def test_leakage_names_the_pairs_and_exits_with_1(tmp_path: Path) -> None:
    image = open_source("demo").images(Part.of_task(get_task("VOC2007"))).find("VOC2007/00003.jpg", "test").read()
    (tmp_path / "copy.jpg").write_bytes(image)
    (tmp_path / "own.jsonl").write_text('{"qry": "", "qry_image_path": "copy.jpg", "pos_text": "a"}\n')
    options = ("--train", tmp_path / "own.jsonl", "--eval", "demo", "--tasks", "VOC2007")
    done = data("leakage", *options, "--output", tmp_path / "leaks.jsonl")
    assert done.code == 1, done.err
    assert "VOC2007: VOC2007/00003.jpg and copy.jpg of own: bytes" in done.out
    (leak,) = [json.loads(line) for line in (tmp_path / "leaks.jsonl").read_text().splitlines()]
    assert (leak["task"], leak["train_image"], leak["match"]) == ("VOC2007", "copy.jpg", "bytes")
    other = ("--train", "demo", "--subsets", "VOC2007", "--eval", "demo", "--tasks", "VOC2007", "--exact")
    clean = data("leakage", *other)
    assert clean.code == 0, clean.err
