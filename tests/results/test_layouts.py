import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.runs import NAMES, report, write, write_run

from mmeb.errors import MmebError
from mmeb.results.layouts import MAX_BYTES, read

# Two tasks of the public leaderboard's file of gme-Qwen2-VL-2B-Instruct (VLM2Vec repository, all_scores/v2.0.0).
PUBLIC = {
    "metadata": {"model_name": "gme-Qwen2-VL-2B-Instruct", "report_generated_date": "2025-06-28T08:54:18.007017"},
    "metrics": {
        "image": {
            "ImageNet-1K": {
                "hit@1": 0.583,
                "hit@5": 0.798,
                "hit@10": 0.876,
                "ndcg_linear@1": 0.583,
                "ndcg_linear@5": 0.6981838939261613,
                "ndcg_linear@10": 0.7234976673917299,
                "precision@1": 0.583,
                "precision@5": 0.1596,
                "precision@10": 0.08760000000000003,
                "f1@1": 0.583,
                "f1@5": 0.26600000000000007,
                "f1@10": 0.1592727272727273,
                "map@1": 0.583,
                "map@5": 0.6649166666666666,
                "map@10": 0.6754202380952381,
                "mrr@1": 0.583,
                "mrr@5": 0.6649166666666666,
                "mrr@10": 0.6754202380952381,
                "num_pred": 1000,
                "num_data": 1000,
            },
            "N24News": "FILE_N/A",
        },
        "video": {"K700": "DIR_N/A"},
        "visdoc": "DIR_N/A",
    },
}


def test_the_public_leaderboard_s_report_with_its_missing_parts(tmp_path: Path) -> None:
    reading = read(write(tmp_path / "gme.json", PUBLIC))
    assert reading.problems == []
    assert list(reading.result.tasks) == ["ImageNet-1K"]
    assert reading.result.tasks["ImageNet-1K"].metrics["hit@1"] == 0.583
    assert reading.unscored == ("N24News",)


def test_scores_as_accuracies_with_counts(tmp_path: Path) -> None:
    scores = {"CIRR": {"acc": 0.51, "num_correct": 510, "num_pred": 1000}}
    reading = read(write(tmp_path / "scores.json", scores))
    assert reading.problems == []
    assert reading.result.tasks["CIRR"].metrics == {"hit@1": 0.51}
    assert reading.result.tasks["CIRR"].num_data == 1000


def test_accuracies_inside_a_report(tmp_path: Path) -> None:
    image = {"CIRR": {"acc": 0.51, "num_correct": 510, "num_pred": 1000}}
    reading = read(write(tmp_path / "x.json", {"metadata": {"model_name": "m"}, "metrics": {"image": image}}))
    assert reading.problems == []
    assert reading.result.tasks["CIRR"].metrics == {"hit@1": 0.51}


def test_an_accuracy_that_its_counts_do_not_give(tmp_path: Path) -> None:
    scores = {"CIRR": {"acc": 0.52, "num_correct": 510, "num_pred": 1000}}
    assert read(write(tmp_path / "scores.json", scores)).problems == ["CIRR: 510 right of 1000 make no acc of 0.52"]


@pytest.mark.parametrize("folder", [".", "image"])
def test_a_folder_of_score_files(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder / "CIRR_score.json", {"acc": 0.51, "num_correct": 510, "num_pred": 1000})
    write(tmp_path / folder / "MSCOCO_i2t_score.json", {"hit@1": 0.5, "num_pred": 1000, "num_data": 1000})
    reading = read(tmp_path)
    assert reading.problems == []
    assert {name: task.metrics["hit@1"] for name, task in reading.result.tasks.items()} == {
        "CIRR": 0.51,
        "MSCOCO_i2t": 0.5,
    }


def test_a_single_score_file(tmp_path: Path) -> None:
    path = write(tmp_path / "CIRR_score.json", {"hit@1": 0.51, "num_pred": 1000, "num_data": 1000})
    assert list(read(path).result.tasks) == ["CIRR"]


def test_a_run_folder_and_its_parts(complete_run: Path) -> None:
    assert tuple(read(complete_run).result.tasks) == NAMES
    assert tuple(read(complete_run / "results.json").result.tasks) == NAMES
    assert list(read(complete_run / "CIRR.json").result.tasks) == ["CIRR"]


def test_a_task_of_a_demo_run_stays_demo(tmp_path: Path) -> None:
    run = write_run(tmp_path, tasks=["CIRR"], data={"kind": "demo"}, n=20)
    assert read(run / "CIRR.json").result.is_demo


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "x.json", "\ufeff" + json.dumps(report()))).result.tasks) == 36


def test_a_row_of_the_first_leaderboard_is_in_percent(tmp_path: Path) -> None:
    row = {"Model": "m", "Model Size(B)": 2.21, "Overall": 62.9, "VQA": 49.9, "CIRR": 51.1}
    reading = read(write(tmp_path / "row.json", row))
    assert reading.problems == []
    assert reading.stated == {"overall": 62.9, "vqa": 49.9}
    assert reading.result.metadata["model_size"] == 2.21
    assert reading.result.tasks["CIRR"].metrics["hit@1"] == pytest.approx(0.511)


def test_tasks_directly_under_metrics_are_read_and_reported(tmp_path: Path) -> None:
    content = {"metadata": {"model_name": "m"}, "metrics": report()["metrics"]["image"]}
    reading = read(write(tmp_path / "x.json", content))
    assert len(reading.result.tasks) == 36
    assert reading.problems == ["the tasks stand directly under 'metrics', they belong under 'metrics.image'"]


def test_percent_where_fractions_are_expected_is_one_line(tmp_path: Path) -> None:
    content = report()
    for scores in content["metrics"]["image"].values():
        scores.update({name: 100 * value for name, value in scores.items() if "@" in name})
    reading = read(write(tmp_path / "x.json", content))
    assert reading.result.tasks == {}
    (line,) = reading.problems
    assert "35 more tasks: scores in percent where fractions are expected" in line


def test_fractions_where_percent_is_expected_is_one_line(tmp_path: Path) -> None:
    reading = read(write(tmp_path / "row.json", {"Model": "m", "Overall": 0.629, "VQA": 0.499}))
    assert reading.stated == {}
    assert reading.problems == ["row: fractions (up to 0.629) where percent is expected; multiply by 100"]


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-0.1", "1" + "0" * 400, "true", '"0.5"', "null", "[1]"]
)
def test_what_is_no_fraction_is_reported_and_not_used(tmp_path: Path, number: str) -> None:
    text = '{"metadata": {"model_name": "m"}, "metrics": {"image": {"CIRR": {"hit@1": %s, "num_pred": 1000}}}}'
    reading = read(write(tmp_path / "x.json", text % number))
    assert reading.result.tasks == {}
    (line,) = reading.problems
    assert line.startswith("CIRR: hit@1 is ")
    assert line.endswith("not a fraction from 0 to 1")


def test_two_entries_of_one_task_are_reported(tmp_path: Path) -> None:
    scores = '{"hit@1": 0.5, "num_pred": 1000}'
    text = f'{{"metadata": {{"model_name": "m"}}, "metrics": {{"image": {{"CIRR": {scores}, "CIRR": {scores}}}}}}}'
    assert read(write(tmp_path / "x.json", text)).problems == ["'CIRR' occurs 2 times"]


@pytest.mark.parametrize(
    ("image", "line"),
    [
        ({"CIRR": {"num_pred": 1000}}, "CIRR: hit@1 is missing"),
        ({"CIRR": {"hit@1": 0.5}}, "CIRR: num_pred, the number of queries that were scored, is missing"),
        ({"CIRR": {"hit@1": 0.5, "num_pred": 10.5}}, "CIRR: num_pred is 10.5, not a count"),
        ({"CIRR": {"hit@1": 0.5, "num_pred": 10**400}}, f"CIRR: num_pred is 1{'0' * 79}…, not a count"),
        ({"CIRR": 0.5}, "CIRR: 0.5 in place of scores"),
        ({"CIRR": "ERROR"}, "CIRR: 'ERROR' in place of scores"),
    ],
)
def test_entries_that_are_no_scores_are_reported(tmp_path: Path, image: dict[str, Any], line: str) -> None:
    content = {"metadata": {"model_name": "m"}, "metrics": {"image": image}}
    assert line in read(write(tmp_path / "x.json", content)).problems


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"metadata": {"model_name": "m"}, "metr', "not valid JSON, perhaps cut off"),
        ("", "not valid JSON"),
        ("[1, 2]", "must hold a JSON object"),
        ('{"a": 1}', "no layout of score files that is known"),
        ("[" * 100_000, "nested too deeply"),
        ('{"metadata": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_what_can_t_be_read_is_one_sentence(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(MmebError, match=why):
        read(write(tmp_path / "x.json", text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(MmebError, match="not valid JSON"):
        read(tmp_path / "x.json")


def test_a_file_of_200_megabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 200_000_000)
    with pytest.raises(MmebError, match="has 200 MB, a score file at most"):
        read(path)
    assert MAX_BYTES < 200_000_000


def test_a_missing_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="can't be read: No such file"):
        read(tmp_path / "x.json")
    with pytest.raises(MmebError, match=r"holds neither results\.json nor"):
        read(tmp_path)
    write(tmp_path / "run.json", {})
    with pytest.raises(MmebError, match="unfinished run"):
        read(tmp_path)
