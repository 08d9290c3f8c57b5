import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hub import serve

_GOLDEN = Path(__file__).parents[1] / "golden" / "data"
_COMMIT = "2f069730be515ea60778413777816b53e2d2a697"


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder like TIGER-Lab/MMEB-eval, with images.zip."""
    folder = tmp_path / "official"
    shutil.copytree(_GOLDEN / "MMEB-eval", folder)
    with zipfile.ZipFile(folder / "images.zip", "w") as target:
        for path in sorted((_GOLDEN / "images").rglob("*.*")):
            target.write(path, path.relative_to(_GOLDEN / "images"))
    return folder


def _mmeb(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mmeb", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def test_what_was_downloaded_is_verified_without_a_call(official: Path, tmp_path: Path) -> None:
    with serve({"datasets/TIGER-Lab/MMEB-eval": official}) as hub:
        home = {"HF_ENDPOINT": str(hub), "HF_HOME": str(tmp_path / "home")}
        done = _mmeb("download", "--tasks", "CIRR,WebQA", "--json", **home)
        assert done.returncode == 0, done.stderr
        assert [Path(path).parts[-2] for path in json.loads(done.stdout)] == ["CIRR", "WebQA", _COMMIT]
        assert _mmeb("verify", "--tasks", "CIRR,WebQA", "--decode", **home).returncode == 0
        hub.requests.clear()
        assert _mmeb("verify", "--tasks", "CIRR", **home).returncode == 0
        assert _mmeb("download", "--tasks", "CIRR", "--offline", **home).returncode == 0
        assert _mmeb("download", "--tasks", "CIRR", **home, HF_HUB_OFFLINE="1").returncode == 0
        missing = _mmeb("download", "--tasks", "GQA", "--offline", **home)
        assert (missing.returncode, "local cache has no rows of GQA" in missing.stderr) == (2, True)
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
    shutil.copytree(_GOLDEN / "images", official / "images")
    (official / "images" / "set0" / "im000.png").unlink()
    done = _mmeb("verify", "--data", official, "--tasks", "WebQA,OK-VQA")
    assert done.returncode == 1
    assert "WebQA: set0/im000.png" in done.stdout
    found = json.loads(_mmeb("verify", "--data", official, "--tasks", "WebQA", "--json").stdout)
    assert [(report["task"], report["missing"], report["is_whole"]) for report in found] == [
        ("WebQA", ["set0/im000.png"], False)
    ]


@pytest.mark.parametrize("status", [401, 404])
def test_a_hub_that_refuses_is_one_sentence_without_traceback(official: Path, tmp_path: Path, status: int) -> None:
    with serve({"datasets/TIGER-Lab/MMEB-eval": official}) as hub:
        hub.status["datasets/TIGER-Lab/MMEB-eval"] = status
        done = _mmeb("download", "--tasks", "CIRR", HF_ENDPOINT=str(hub), HF_HOME=str(tmp_path / "home"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The hub has no TIGER-Lab/MMEB-eval")
    assert "Traceback" not in done.stderr


def test_the_demo_is_written_and_verified(tmp_path: Path) -> None:
    assert _mmeb("demo", "--output", tmp_path / "demo").returncode == 0
    done = _mmeb("verify", "--data", tmp_path / "demo")
    assert done.returncode == 0, done.stdout
    again = _mmeb("demo", "--output", tmp_path / "demo")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_the_help_imports_neither_torch_nor_the_hub() -> None:
    script = "import sys, mmeb.cli.data; print([name for name in sys.modules if name in ('torch', 'huggingface_hub')])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
