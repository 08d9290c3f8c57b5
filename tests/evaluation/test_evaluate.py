"""A whole run on demo data: its folder, its resumption, and what it refuses."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.hash_model import HashModel
from torch import Tensor

from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache
from mmeb.evaluation.evaluate import evaluate
from mmeb.models.base import Batch
from mmeb.results.layouts import read
from mmeb.results.ranks import metrics_from_ranks
from mmeb.results.schema import RunResult
from mmeb.results.store import RunFolder

TASKS = "VOC2007,HatefulMemes,MSCOCO_t2i,WebQA"


def run(output: Path, model: HashModel | None = None, **options: Any) -> RunResult:
    return evaluate(model or HashModel(), options.pop("tasks", TASKS), "demo", output, workers=0, **options)


def scores(folder: Path) -> dict[str, Any]:
    """All that is scores in a run folder; the times and dates left out."""
    content = json.loads((folder / "results.json").read_text())
    ranks = {path.name: path.read_bytes() for path in sorted(folder.glob("*.ranks.parquet"))}
    return {"metrics": content["metrics"], "ranks": ranks}


def test_a_run_leaves_its_folder_as_documented(tmp_path: Path) -> None:
    result = run(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run.json", "results.json"} | {
        name for task in TASKS.split(",") for name in (f"{task}.json", f"{task}.ranks.parquet")
    }
    assert read(tmp_path).result.tasks == result.tasks
    identity = json.loads((tmp_path / "run.json").read_text())["identity"]
    assert identity["data"]["kind"] == "demo"
    assert {"torch", "transformers", "pillow"} <= identity["libraries"].keys()


def test_the_metrics_are_those_of_the_ranks_on_disk(tmp_path: Path) -> None:
    result = run(tmp_path)
    for name, task in result.tasks.items():
        ranks = RunFolder(tmp_path).read_ranks(name)
        assert dict(task.metrics) == metrics_from_ranks(ranks.rank)
        assert task.num_pred == task.num_data == len(ranks)


def test_demo_results_say_that_they_are(tmp_path: Path) -> None:
    assert run(tmp_path, tasks="VOC2007").is_demo


def test_a_second_call_repeats_no_task(tmp_path: Path) -> None:
    first = run(tmp_path, tasks="VOC2007")
    model = HashModel()
    both = run(tmp_path, model, tasks="VOC2007,HatefulMemes")
    assert set(both.tasks) == {"VOC2007", "HatefulMemes"}
    assert both.tasks["VOC2007"] == first.tasks["VOC2007"]


def test_a_run_with_another_setting_is_refused_and_named(tmp_path: Path) -> None:
    run(tmp_path, tasks="VOC2007")
    before = scores(tmp_path)
    with pytest.raises(MmebError, match=r"belongs to another run \(limit: None there, 3 now"):
        run(tmp_path, tasks="VOC2007", limit=3)
    assert scores(tmp_path) == before
    run(tmp_path, tasks="VOC2007", limit=3, fresh=True)


def test_a_run_file_that_lost_its_content_is_another_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(MmebError, match="belongs to another run"):
        run(tmp_path, tasks="VOC2007")


def test_a_limited_run_says_how_many_rows_there_are(tmp_path: Path) -> None:
    task = run(tmp_path, tasks="VOC2007", limit=3).tasks["VOC2007"]
    assert task.num_pred == 3
    assert task.num_data > 3


@pytest.mark.parametrize("fault", ["constant", "nan", "zero"])
def test_a_model_that_is_broken_gets_no_score(tmp_path: Path, fault: str) -> None:
    with pytest.raises(MmebError):
        run(tmp_path, HashModel(fault=fault), tasks="VOC2007")
    assert not list(tmp_path.glob("VOC2007*"))


def test_saved_embeddings_reproduce_the_ranks(tmp_path: Path) -> None:
    run(tmp_path, tasks="VOC2007", save_embeddings=True)
    vectors = load_file(tmp_path / "VOC2007.safetensors")
    assert vectors["query"].dtype == vectors["candidate"].dtype == np.float32
    ranks = RunFolder(tmp_path).read_ranks("VOC2007")
    scores = vectors["query"] @ vectors["candidate"].T
    assert np.isclose(scores, ranks.score[0], atol=1e-6).any()


def test_an_output_that_is_a_file_or_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MmebError, match="is a file"):
        run(tmp_path / "file", tasks="VOC2007")
    with pytest.raises(MmebError, match="can't be written"):
        run(Path("/proc/mmeb"), tasks="VOC2007")


class SlowModel(HashModel):
    def embed(self, batch: Batch) -> Tensor:
        time.sleep(0.05)
        return super().embed(batch)


@pytest.mark.parametrize("seconds", [0.0, 0.4, 1.0])
def test_a_run_killed_at_any_moment_ends_with_the_scores_of_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    run(tmp_path / "unbroken")
    monkeypatch.setattr(VectorCache.__init__, "__kwdefaults__", {"seconds": 0})
    folder = tmp_path / "broken"
    process = multiprocessing.get_context("fork").Process(
        target=evaluate, args=(SlowModel(), TASKS, "demo", folder), kwargs={"workers": 0}
    )
    process.start()
    while not (folder / "run.json").exists():
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(seconds)
    process.kill()
    process.join()
    assert not (folder / "results.json").exists()
    run(folder)
    assert scores(folder) == scores(tmp_path / "unbroken")
