import json
from pathlib import Path

import numpy as np
import pytest
from support.runs import NAMES, random_ranks, report, result, write, write_run

from mmeb.errors import MmebError
from mmeb.leaderboard.submission import submit
from mmeb.results.layouts import read
from mmeb.results.ranks import metrics_from_ranks
from mmeb.results.schema import TaskResult
from mmeb.results.store import RunFolder, load_ranks
from mmeb.results.text import file_stem
from mmeb.results.validation import check_files

ODD_NAMES = [
    "org/model",
    "../../etc/passwd",
    'a "b" c',
    "<script>alert(1)</script>",
    "😀",
    "نموذج",
    "..",
    "a" * 180,
    "/",
]


def test_a_run_becomes_a_file_that_the_validator_takes(tmp_path: Path, complete_run: Path) -> None:
    written = submit(complete_run, tmp_path / "results", {})
    assert written.path == tmp_path / "results" / "tiny.json"
    (found,) = check_files([written.path])
    assert found.exit_code == 0
    assert "with per-query ranks" in found.summary


def test_the_ranks_travel_with_it_and_give_every_metric(tmp_path: Path, complete_run: Path) -> None:
    written = submit(complete_run, tmp_path / "results", {})
    ranks = load_ranks(written.path)
    assert list(ranks) == list(NAMES)
    for seed, name in enumerate(NAMES):
        assert np.array_equal(ranks[name].rank, random_ranks(seed).rank)
        assert np.array_equal(ranks[name].tied, random_ranks(seed).tied)
        assert read(written.path).result.tasks[name].metrics == metrics_from_ranks(ranks[name].rank)
    assert written.ranks is not None
    assert written.ranks.stat().st_size < 150_000


def test_metadata_is_the_public_leaderboard_s_and_what_is_stated_wins(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", metadata={"model_size": 2.0, "model_backbone": "clip", "url": None})
    written = submit(run, tmp_path, {"model_name": "My Model", "model_size": 2.21, "url": "https://example.org/m"})
    assert json.loads(written.path.read_text())["metadata"] == {
        "model_name": "My Model",
        "model_backbone": "clip",
        "model_size": 2.21,
        "data_source": "Self-Reported",
        "url": "https://example.org/m",
    }


def test_our_own_file_has_the_image_part_only_and_the_public_one_all_parts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=NAMES[:30])
    ours = submit(run, tmp_path / "ours", {}, partial=True)
    public = submit(run, tmp_path / "public", {}, partial=True, public=True)
    assert list(json.loads(ours.path.read_text())["metrics"]) == ["image"]
    metrics = json.loads(public.path.read_text())["metrics"]
    assert {part: len(entries) for part, entries in metrics.items()} == {"image": 36, "visdoc": 27, "video": 18}
    assert metrics["image"]["EDIS"] == "FILE_N/A"
    assert set(metrics["video"].values()) == {"DIR_N/A"}
    assert read(public.path).result.tasks == read(ours.path).result.tasks


def test_demo_results_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", data={"kind": "demo"}, n=20)
    with pytest.raises(MmebError, match="demo results, which never enter"):
        submit(run, tmp_path / "results", {})
    assert not (tmp_path / "results").exists()


def test_an_incomplete_run_is_refused_unless_asked_for(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=NAMES[:30])
    with pytest.raises(MmebError, match=r"6 of 36 tasks are missing.*--partial"):
        submit(run, tmp_path, {})
    assert submit(run, tmp_path, {}, partial=True).path.exists()


def test_a_run_that_can_t_be_true_is_refused(tmp_path: Path) -> None:
    content = report()
    content["metrics"]["image"]["CIRR"]["precision@1"] = 0.999
    with pytest.raises(MmebError, match="CIRR: precision@1"):
        submit(write(tmp_path / "x.json", content), tmp_path / "results", {})


def test_an_earlier_submission_is_replaced_only_when_asked_for(tmp_path: Path, complete_run: Path) -> None:
    submit(complete_run, tmp_path / "results", {})
    with pytest.raises(MmebError, match="--force replaces it"):
        submit(complete_run, tmp_path / "results", {})
    submit(complete_run, tmp_path / "results", {}, force=True)


def test_a_file_without_a_model_is_not_replaced(tmp_path: Path, complete_run: Path) -> None:
    write(tmp_path / "results" / "tiny.json", {"metadata": [], "metrics": {}})
    with pytest.raises(MmebError, match="is of another model, None"):
        submit(complete_run, tmp_path / "results", {}, force=True)


def test_two_models_whose_file_names_meet_are_told_apart(tmp_path: Path, complete_run: Path) -> None:
    submit(complete_run, tmp_path / "results", {"model_name": "a b"})
    with pytest.raises(MmebError, match="is of another model, 'a b'"):
        submit(complete_run, tmp_path / "results", {"model_name": "a?b"}, force=True)


def test_ranks_of_an_earlier_submission_do_not_stay_behind(tmp_path: Path, complete_run: Path) -> None:
    submit(complete_run, tmp_path / "results", {})
    written = submit(write(tmp_path / "x.json", report()), tmp_path / "results", {}, force=True)
    assert written.ranks is None
    assert load_ranks(written.path) == {}
    assert any("no per-query ranks" in note for note in written.notes)


def test_accuracies_of_another_tool_become_a_submission(tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / "scores" / f"{name}_score.json", {"acc": 0.5, "num_correct": 500, "num_pred": 1000})
    written = submit(tmp_path / "scores", tmp_path / "results", {"model_name": "other"})
    assert json.loads(written.path.read_text())["metrics"]["image"]["CIRR"] == {
        "hit@1": 0.5,
        "num_pred": 1000,
        "num_data": 1000,
    }


def test_a_task_of_one_s_own_stays_at_home(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    folder, complete = RunFolder(run), result()
    own = TaskResult("Cats", metrics_from_ranks(random_ranks(99, 12).rank), 12, 12, {"data": {"kind": "hub"}})
    folder.write_task(own, random_ranks(99, 12))
    folder.write_results(type(complete)(complete.metadata, {**complete.tasks, "Cats": own}, complete.provenance))
    written = submit(run, tmp_path / "results", {})
    assert written.notes == ("custom task, left out: Cats",)
    assert "Cats" not in read(written.path).result.tasks
    assert "Cats" not in load_ranks(written.path)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_s_name_is_safe_whatever_the_model_s_is(tmp_path: Path, complete_run: Path, name: str) -> None:
    written = submit(complete_run, tmp_path / "results", {"model_name": name})
    assert written.path.parent == tmp_path / "results"
    assert written.path.name.isascii()
    assert not set(written.path.name) & set("/\\\"'<>|?*: ")
    assert len(written.path.name) < 150
    assert read(written.path).result.metadata["model_name"] == name


def test_names_of_other_scripts_do_not_meet() -> None:
    assert len({file_stem(name) for name in ("模型", "模型一", "نموذج", "😀", "😃", "a" * 101, "a" * 102)}) == 7
    assert file_stem("TIGER-Lab/VLM2Vec-Full") == "TIGER-Lab__VLM2Vec-Full"
