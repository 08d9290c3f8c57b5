"""Every benchmark runs to its end at a tiny size, and measures what it says where that needs no clock."""

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
    command = importlib.import_module(f"benchmarks.{script}").main
    done = CliRunner().invoke(command, [*arguments, "--json", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    written = json.loads(file.read_text())
    assert {"CPU", "cores", "load", "torch", "mmeb"} <= written["machine"].keys()
    rows: list[dict[str, Any]] = written["figures"]
    return rows


def test_vision_tower_sees_the_crops_that_there_are_and_no_more(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.vision_tower", "--count", "5")
    assert [row["computed / needed"] for row in rows] == [1, 1]
    assert all(row["padded"] > row["crops needed"] for row in rows)


def test_padding_is_under_five_percent(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.padding", "--data", "shape", "--rows", "40", "--only", "qwen2-vl, own size")
    assert [row["data"] for row in rows] == ["MMEB's shape"]
    assert rows[0]["padding, cpu %"] < 5 < rows[0]["padding, 8 in order %"]


def test_data_with_mmeb_s_shape_has_its_counts(tmp_path: Path) -> None:
    from benchmarks.support.mmeb_shape import SHAPES, write_suite
    from mmeb.data.dataset import load_eval
    from mmeb.data.source import open_source
    from mmeb.tasks import TASKS, get_tasks

    assert list(SHAPES) == [task.name for task in TASKS]
    write_suite(tmp_path / "MMEB-eval", rows=5, most=50)
    dataset = load_eval(get_tasks("CIRR")[0], open_source(tmp_path / "MMEB-eval"))
    assert (dataset.n_rows, dataset.candidate_ids.shape) == (5, (5, 50))
    image = dataset.queries[0].image
    assert image is not None
    assert image.size() == (640, 480)


def test_harness_counts_every_item(tmp_path: Path) -> None:
    (row,) = figures(tmp_path, "evaluation.harness", "--rows", "2", "--most", "3")
    assert row["items"] > 36 * 2
    assert 0 < row["encode"] < row["seconds"]
    assert row["peak GiB"] > 0.05


def test_memory_is_measured_for_each_count(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.memory", "--counts", "10,20")
    assert [row["items"] for row in rows] == [10, 20]
    assert all(row["peak GiB"] > 0.05 for row in rows)


def test_pipeline_runs_both_families(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.pipeline", "--tiny", "--count", "4", "--repeats", "1")
    assert [(row["model"], row["items"]) for row in rows] == [("clip", 32), ("qwen2-vl", 4)]


def test_evaluation_agrees_with_itself(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.whole_task", "--tiny", "--no-peers", "--queries", "3", "--candidates", "5")
    assert [row["model"] for row in rows] == ["clip", "qwen2-vl"]
    assert all(row["agreement"] == pytest.approx(1) for row in rows)


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_processes_score_the_same_task(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.processes", "--tiny", "--queries", "3", "--candidates", "5", "--repeats", "1")
    assert [row["processes"] for row in rows] == [1, 2]
    assert all(row["encoding s"] > 0 for row in rows)


def test_gpu_script_computes_less_for_the_same_vectors(tmp_path: Path) -> None:
    rows = figures(tmp_path, "evaluation.gpu", "--tiny", "--count", "10")
    by_way = {(row["items"], row["way"]): row for row in rows}
    assert len(by_way) == 4
    assert all(row["least cosine"] > 0.999 for row in rows)
    for kind in ("image+text", "text"):
        assert by_way[kind, "naive"]["GFLOP an item"] > by_way[kind, "mmeb"]["GFLOP an item"]


def test_memory_is_measured_for_a_step(tmp_path: Path) -> None:
    (row,) = figures(tmp_path, "training.memory", "--models", "clip/tiny", "--batches", "4", "--sub-batches", "2")
    assert row["GradCache"] == "sub-batches of 2"
    assert row["peak GiB"] > row["inputs GiB"] > 0


def test_speed_counts_what_goes_through_the_model(tmp_path: Path) -> None:
    arguments = "--no-peers --models clip/tiny --batches classes --batch-size 20 --sub-batch-size 4 --steps 1 --turns 1"
    (row,) = figures(tmp_path, "training.speed", *arguments.split())
    assert row["items"] == 2 * (20 + 16) - 4  # 16 classes, and the last sub-batch once
    assert row["agreement"] == pytest.approx(1)
    assert row["loss off by"] == 0


def test_a_bare_loop_makes_the_passes_of_a_step(tmp_path: Path) -> None:
    arguments = "--models clip/tiny --batch-size 4 --sub-batch-size 2 --turns 1"
    (row,) = figures(tmp_path, "training.grad_cache", *arguments.split())
    assert row["sub-batches"] == 4
    assert min(row["step s"], row["its passes s"], row["two passes each s"]) > 0


def test_demo_training_scores_every_meta_task_before_and_after(tmp_path: Path) -> None:
    rows = figures(tmp_path, "training.demo", "--steps", "2", "--seeds", "0,1", "--limit", "4")
    labels = [(row["model"], row["seed"]) for row in rows]
    assert labels[:4] == [("chance", ""), ("untrained", "0"), ("2 steps", "0"), ("untrained", "1")]
    assert labels[-1] == ("2 steps", "standard deviation")
    assert all({"classification", "vqa", "retrieval", "grounding", "OOD"} <= row.keys() for row in rows)
    assert 0 < rows[0]["OOD"] < 10


def test_gpu_script_trains_a_lora_for_each_size_of_sub_batch(tmp_path: Path) -> None:
    arguments = "--tiny --batch-size 2 --tokens 500,2000 --steps 1 --workers 0"
    rows = figures(tmp_path, "training.gpu", *arguments.split())
    assert [row["tokens in a sub-batch"] for row in rows] == [500, 2000]
    assert all(row["items/s"] > 0 for row in rows)
