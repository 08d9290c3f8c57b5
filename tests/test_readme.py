"""Every command of the README is run here, as it stands there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from support.hub import serve
from support.official import write_official
from support.paths import GOLDEN

from mmeb.demo import demo_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHECKPOINTS = GOLDEN / "ckpt"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


# The recipe's 2000 steps of 1024 pairs are for a GPU: here it is followed for two steps of four.
SHORT = ["--steps", "2", "--batch-size", "4", "--limit", "4", "--subsets", "VOC2007,WebQA"]


def commands(*programs: str) -> list[str]:
    """The README's command lines of some programs, in order, without their comments."""
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line.split(" ")[0] in programs]


def sharpened(checkpoint: Path, folder: Path) -> Path:
    """A copy whose attention is not flat: with random weights, line drawings under one instruction look all alike."""
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    sharper = {name: weight * 3 if "qkv_proj" in name else weight for name, weight in weights.items()}
    save_file(sharper, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """An empty working folder and an environment in which the hub has small things at the official names."""
    repositories = {
        "datasets/TIGER-Lab/MMEB-eval": write_official(tmp_path_factory.mktemp("hub") / "e", rows=4, candidates=5),
        "openai/clip-vit-large-patch14": CHECKPOINTS / "clip",
        "datasets/TIGER-Lab/MMEB-train": demo_folder() / "MMEB-train",
        "microsoft/Phi-3.5-vision-instruct": sharpened(
            CHECKPOINTS / "phi3_v", tmp_path_factory.mktemp("base") / "phi3_v"
        ),
        "TIGER-Lab/VLM2Vec-Full": sharpened(CHECKPOINTS / "phi3_v", tmp_path_factory.mktemp("vlm") / "phi3_v"),
    }
    home = tmp_path_factory.mktemp("home")
    with serve(repositories) as hub:
        yield tmp_path_factory.mktemp("user"), {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(home)}


@pytest.mark.parametrize("command", commands("mmeb", "torchrun"))
def test_a_command_of_the_readme_works(user: tuple[Path, dict[str, str]], command: str) -> None:
    cwd, environment = user
    line = [sys.executable, "-m", *shlex.split(command.replace("torchrun", "torch.distributed.run --standalone"))]
    if command.startswith("mmeb train --adapter phi35v"):
        line += SHORT
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_readme_works(tmp_path: Path) -> None:
    (code,) = blocks("python")
    Image.new("RGB", (60, 40), "orange").save(tmp_path / "cat.png")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 0 <= float(done.stdout) <= 1


def test_make_demo_prints_the_table_and_builds_its_tables_and_page_in_its_own_folder(tmp_path: Path) -> None:
    assert commands("make") == ["make demo", "make test"]
    before = {path: path.stat().st_mtime_ns for path in (ROOT / "leaderboard").rglob("*")}
    done = subprocess.run(
        # The environment is there already: it is what runs this test.
        ["make", "demo", "-o", "install", f"BIN={Path(sys.executable).parent}", f"DEMO={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert "Demo results" in done.stdout
    assert {"results.json", "README.md", "table.csv", "index.html"} <= {path.name for path in tmp_path.iterdir()}
    assert {path: path.stat().st_mtime_ns for path in (ROOT / "leaderboard").rglob("*")} == before


def test_a_built_wheel_holds_all_that_the_package_needs(tmp_path: Path) -> None:
    """`pip install mmeb`, from a wheel: the demo model runs with nothing of the checkout in sight."""
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True, timeout=300)
    command = ["run", "--model", "demo", "--tasks", "HatefulMemes", "--data", "demo", "--output", "out"]
    code = "import sys, mmeb.cli.main as main; print(main.__file__); main.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "HatefulMemes" in done.stdout


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?://)([^)#]+)\)", README))
def test_what_the_readme_links_to_is_there(link: str) -> None:
    assert (ROOT / link).exists()
