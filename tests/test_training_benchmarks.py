"""Every benchmark of training runs to its end at a tiny size, and measures what it says where that needs no clock."""

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the benchmarks are for Linux")


def figures(tmp_path: Path, script: str, *arguments: str) -> list[dict[str, Any]]:
    """The rows that a benchmark writes as JSON."""
    file = tmp_path / "figures.json"
    command = importlib.import_module(script).main
    done = CliRunner().invoke(command, [*arguments, "--json", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(file.read_text())["figures"]
    return rows


def test_memory_is_measured_for_a_step(tmp_path: Path) -> None:
    (row,) = figures(tmp_path, "training_memory", "--models", "clip/tiny", "--batches", "4", "--sub-batches", "2")
    assert row["GradCache"] == "sub-batches of 2"
    assert row["peak GiB"] > row["inputs GiB"] > 0


def test_speed_counts_what_goes_through_the_model(tmp_path: Path) -> None:
    arguments = "--no-peers --models clip/tiny --batches classes --batch-size 20 --sub-batch-size 4 --steps 1 --turns 1"
    (row,) = figures(tmp_path, "training_speed", *arguments.split())
    assert row["items"] == 2 * (20 + 16) - 4  # 16 classes, and the last sub-batch once
    assert row["agreement"] == pytest.approx(1)
    assert row["loss off by"] == 0


def test_a_bare_loop_makes_the_passes_of_a_step(tmp_path: Path) -> None:
    arguments = "--models clip/tiny --batch-size 4 --sub-batch-size 2 --turns 1"
    (row,) = figures(tmp_path, "grad_cache", *arguments.split())
    assert row["sub-batches"] == 4
    assert min(row["step s"], row["its passes s"], row["two passes each s"]) > 0


def test_demo_training_scores_every_meta_task_before_and_after(tmp_path: Path) -> None:
    rows = figures(tmp_path, "demo_training", "--steps", "2", "--seeds", "0,1", "--limit", "4")
    labels = [(row["model"], row["seed"]) for row in rows]
    assert labels[:4] == [("chance", ""), ("untrained", "0"), ("2 steps", "0"), ("untrained", "1")]
    assert labels[-1] == ("2 steps", "standard deviation")
    assert all({"classification", "vqa", "retrieval", "grounding", "OOD"} <= row.keys() for row in rows)
    assert 0 < rows[0]["OOD"] < 10


def test_gpu_script_trains_a_lora_for_each_size_of_sub_batch(tmp_path: Path) -> None:
    arguments = "--tiny --batch-size 2 --tokens 500,2000 --steps 1 --workers 0"
    rows = figures(tmp_path, "training_gpu", *arguments.split())
    assert [row["tokens in a sub-batch"] for row in rows] == [500, 2000]
    assert all(row["items/s"] > 0 for row in rows)
