"""Every benchmark runs to its end at a tiny size, and measures what it says where that needs no clock."""

import importlib
import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from support.paths import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the benchmarks are for Linux")


Figures = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def figures(tmp_path: Path) -> Figures:
    """The rows that a benchmark writes as JSON, by its module and the arguments of its command line."""

    def run(module: str, arguments: str = "") -> list[dict[str, Any]]:
        file = tmp_path / "figures.json"
        command = importlib.import_module(f"benchmarks.{module}").main
        done = CliRunner().invoke(command, [*shlex.split(arguments), "--json", str(file)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        written = json.loads(file.read_text())
        assert {"CPU", "cores", "load", "torch", "mmeb"} <= written["machine"].keys()
        rows: list[dict[str, Any]] = written["figures"]
        return rows

    return run


SCRIPTS = [
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for subject in ("evaluation", "training", "quality")
    for path in sorted((ROOT / "benchmarks" / subject).glob("[a-z]*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_says_how_it_is_run_and_is_in_the_documentation(script: str) -> None:
    module = importlib.import_module(script)
    assert f"python -m {script}" in (module.__doc__ or "")
    assert {"--json"} <= {option for parameter in module.main.params for option in parameter.opts}
    assert f"`{script.removeprefix('benchmarks.')}`" in (ROOT / "docs/benchmarks.md").read_text()


def test_vision_tower_sees_the_crops_that_there_are_and_no_more(figures: Figures) -> None:
    rows = figures("evaluation.vision_tower", "--count 5")
    assert [row["computed / needed"] for row in rows] == [1, 1]
    assert all(row["padded"] > row["crops needed"] for row in rows)


def test_padding_is_under_five_percent(figures: Figures) -> None:
    rows = figures("evaluation.padding", "--data shape --rows 40 --only 'qwen2-vl, own size'")
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


def test_harness_counts_every_item(figures: Figures) -> None:
    (row,) = figures("evaluation.harness", "--rows 2 --most 3")
    assert row["items"] > 36 * 2
    assert 0 < row["encode"] < row["seconds"]
    assert row["peak GiB"] > 0.05


def test_ranking_is_compared_with_the_reference_and_the_bare_product(figures: Figures) -> None:
    rows = figures("evaluation.ranking", "--pools 1000 --dim 8 --repeats 1")
    assert [row["way"] for row in rows] == ["ours", "reference", "product"]
    assert all(row["seconds"] > 0 for row in rows)


def test_startup_times_what_only_answers(figures: Figures) -> None:
    rows = figures("evaluation.startup", "--turns 1")
    assert [row["command"] for row in rows] == ["python -c pass", "mmeb --help", "mmeb tasks", "mmeb models"]
    assert all(row["over python -c pass"] >= 1 for row in rows)


def test_full_size_is_loaded_and_embeds(figures: Figures) -> None:
    rows = figures("evaluation.phi3_v_full_size", "--tiny")
    assert [(row["what"], row.get("finite")) for row in rows] == [
        ("load", None),
        ("image with text", True),
        ("text", True),
    ]


def test_fidelity_is_measured_against_the_reference_and_between_batches(figures: Figures) -> None:
    compared, *moved = figures("quality.fidelity", "--only blip2 --every 10")
    assert float(compared["largest difference"]) < 1e-5
    assert {row["dtype"] for row in moved if "dtype" in row} == {"float32", "bf16"}


def test_memory_is_measured_for_each_count(figures: Figures) -> None:
    rows = figures("evaluation.memory", "--counts 10,20")
    assert [row["items"] for row in rows] == [10, 20]
    assert all(row["peak GiB"] > 0.05 for row in rows)


def test_pipeline_runs_both_families(figures: Figures) -> None:
    rows = figures("evaluation.pipeline", "--tiny --count 4 --repeats 1")
    assert [(row["model"], row["items"]) for row in rows] == [("clip", 32), ("qwen2-vl", 4)]


def test_evaluation_agrees_with_itself(figures: Figures) -> None:
    rows = figures("evaluation.whole_task", "--tiny --no-peers --queries 3 --candidates 5")
    assert [row["model"] for row in rows] == ["clip", "qwen2-vl"]
    assert all(row["agreement"] == pytest.approx(1) for row in rows)


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two cores")
def test_processes_score_the_same_task(figures: Figures) -> None:
    rows = figures("evaluation.processes", "--tiny --queries 3 --candidates 5 --repeats 1")
    assert [row["processes"] for row in rows] == [1, 2]
    assert all(row["encoding s"] > 0 for row in rows)


def test_gpu_script_computes_less_for_the_same_vectors(figures: Figures) -> None:
    rows = figures("evaluation.gpu", "--tiny --count 10")
    by_way = {(row["items"], row["way"]): row for row in rows}
    assert len(by_way) == 4
    assert all(row["least cosine"] > 0.999 for row in rows)
    for kind in ("image+text", "text"):
        assert by_way[kind, "naive"]["GFLOP an item"] > by_way[kind, "mmeb"]["GFLOP an item"]


def test_memory_is_measured_for_a_step(figures: Figures) -> None:
    (row,) = figures("training.memory", "--models clip/tiny --batches 4 --micro-batches 2")
    assert row["GradCache"] == "micro-batches of 2"
    assert row["peak GiB"] > row["inputs GiB"] > 0


def test_speed_counts_what_goes_through_the_model(figures: Figures) -> None:
    arguments = (
        "--no-peers --models clip/tiny --batches classes --batch-size 20 --micro-batch-size 4 --steps 1 --turns 1"
    )
    (row,) = figures("training.speed", f"{arguments} --steps 1 --turns 1")
    assert row["items"] == 2 * (20 + 16) - 4  # 16 classes, and the last micro-batch once
    assert row["agreement"] == pytest.approx(1)
    assert row["loss off by"] == 0


def test_a_bare_loop_makes_the_passes_of_a_step(figures: Figures) -> None:
    arguments = "--models clip/tiny --batch-size 4 --micro-batch-size 2 --turns 1"
    (row,) = figures("training.grad_cache", arguments)
    assert row["micro-batches"] == 4
    assert min(row["step s"], row["its passes s"], row["two passes each s"]) > 0


def test_demo_training_scores_every_meta_task_before_and_after(figures: Figures) -> None:
    rows = figures("training.demo", "--steps 2 --seeds 0,1 --limit 4")
    labels = [(row["model"], row["seed"]) for row in rows]
    assert labels[:4] == [("chance", ""), ("untrained", "0"), ("2 steps", "0"), ("untrained", "1")]
    assert labels[-1] == ("2 steps", "standard deviation")
    assert all({"classification", "vqa", "retrieval", "grounding", "OOD"} <= row.keys() for row in rows)
    assert 0 < rows[0]["OOD"] < 10


def test_gpu_script_trains_a_lora_for_each_size_of_micro_batch(figures: Figures) -> None:
    arguments = "--tiny --batch-size 2 --tokens 500,2000 --steps 1 --workers 0"
    rows = figures("training.gpu", arguments)
    assert [row["tokens in a micro-batch"] for row in rows] == [500, 2000]
    assert all(row["items/s"] > 0 for row in rows)
