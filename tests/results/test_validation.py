import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.paths import GOLDEN
from support.runs import NAMES, random_ranks, report, write, write_run

from mmeb.results.layouts import read
from mmeb.results.ranks import read_ranks, write_ranks, write_submission_ranks
from mmeb.results.store import load_ranks, ranks_path
from mmeb.results.validation import check_files, validate


def problems(path: Path, **options: bool) -> list[str]:
    return validate(read(path), load_ranks(path), **options)


def changed(tmp_path: Path, **metrics: Any) -> Path:
    """A report in which some metrics of CIRR were changed; `hit__5` stands for `hit@5`."""
    content = report()
    content["metrics"]["image"]["CIRR"].update({name.replace("__", "@"): value for name, value in metrics.items()})
    return write(tmp_path / "x.json", content)


def test_nothing_is_wrong_with_a_complete_report(tmp_path: Path) -> None:
    assert problems(write(tmp_path / "x.json", report())) == []


def test_nothing_is_wrong_with_a_run_and_its_ranks(complete_run: Path) -> None:
    assert problems(complete_run) == []
    assert len(load_ranks(complete_run)) == 36


def test_the_reference_s_own_metrics_agree_with_each_other(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "v2_metrics.json").read_text())
    for setting, tasks in golden.items():
        scores = {
            name: {metric: value for metric, value in metrics.items() if "@" in metric}
            | {"num_pred": 20, "num_data": 20}
            for name, metrics in tasks.items()
        }
        content = {"metadata": {"model_name": setting}, "metrics": {"image": scores}}
        lines = problems(write(tmp_path / f"{setting}.json", content), partial=True, demo=True)
        assert lines == ["TextOnly: no task of this benchmark"]  # one of the ten is the suite's own


def test_the_reference_counts_copies_of_the_ground_truth_and_may(tmp_path: Path) -> None:
    # RefCOCO-Matching in the public leaderboard's file of gme-Qwen2-VL-2B-Instruct; its candidates have copies.
    scores = {"hit@1": 0.733, "hit@5": 0.989, "map@5": 0.8612833333333333, "mrr@5": 0.8582833333333333}
    content = report(tasks=())
    content["metrics"]["image"] = {"RefCOCO-Matching": {**scores, "num_pred": 1000, "num_data": 1000}}
    assert problems(write(tmp_path / "x.json", content), partial=True) == []
    content["provenance"]["tasks"] = {"RefCOCO-Matching": {"data": {"kind": "hub"}}}
    (line,) = problems(write(tmp_path / "y.json", content), partial=True)
    assert line.startswith("RefCOCO-Matching: map@5 is 0.861283, but mrr@5")


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ({"precision__1": 0.9}, "CIRR: precision@1 is 0.9, but hit@1"),
        ({"precision__5": 0.9}, "CIRR: precision@5 is 0.9, but hit@5"),
        ({"recall__10": 0.9}, "CIRR: recall@10 is 0.9, but hit@10"),
        ({"f1__5": 0.9}, "CIRR: f1@5 is 0.9, but hit@5"),
        ({"map__5": 0.1}, "CIRR: map@5 is 0.1, but mrr@5"),
        ({"ndcg_exponential__5": 0.1}, "CIRR: ndcg_exponential@5 is 0.1, but ndcg_linear@5"),
        ({"mrr__1": 0.1}, "CIRR: mrr@1 is 0.1, but hit@1"),
        ({"hit__5": 0.1}, "CIRR: hit@5 0.1 is below hit@1"),
        ({"mrr__10": 0.99}, "CIRR: mrr@10 is "),
        ({"ndcg_linear__5": 0.99}, "CIRR: ndcg_linear@5 is 0"),
        ({"hit__1": 0.5005}, "CIRR: hit@1 0.5005 is no whole number of 1000 queries"),
        ({"num_pred": 990}, "CIRR: 990 queries were scored of 1000"),
    ],
)
def test_metrics_that_can_t_be_true_together(tmp_path: Path, metrics: dict[str, float], line: str) -> None:
    assert any(found.startswith(line) for found in problems(changed(tmp_path, **metrics)))


def test_one_lie_of_one_query_is_found(tmp_path: Path) -> None:
    hits = report()["metrics"]["image"]["CIRR"]["hit@1"]
    assert problems(changed(tmp_path, hit__1=round(hits + 0.001, 3)))


def test_everything_wrong_is_said_at_once_one_line_each(tmp_path: Path) -> None:
    content = report(metadata={"model_size": -1, "url": "ftp://x", "model_release_date": "soon"})
    image = content["metrics"]["image"]
    image["CIRR"]["hit@1"] = float("nan")
    image["EDIS"]["num_data"] = 2000
    image["K700"] = image.pop("OVEN")
    lines = problems(write(tmp_path / "x.json", content))
    assert len(lines) == 7
    for start in (
        "CIRR: hit@1",
        "metadata: model_size",
        "metadata: url",
        "metadata: model_release_date",
        "K700: no task",
    ):
        assert any(line.startswith(start) for line in lines)
    assert "2 of 36 tasks are missing: CIRR, OVEN" in lines
    assert "EDIS: 1000 queries were scored of 2000" in lines


def test_a_task_of_another_benchmark_is_told_from_a_misspelt_one(tmp_path: Path) -> None:
    scores = report()["metrics"]["image"]["CIRR"]
    content = report()
    content["metrics"]["image"] |= {"CIFAR-100": scores, "ImageNet_1K": scores}
    assert problems(write(tmp_path / "x.json", content)) == [
        "CIFAR-100: no task of this benchmark",
        "ImageNet_1K: no task of this benchmark; did you mean ImageNet-1K?",
    ]


def test_missing_tasks_are_wrong_unless_permitted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", report(tasks=NAMES[:25]))
    (line,) = problems(path)
    assert line.startswith("11 of 36 tasks are missing: MSCOCO_i2t")
    assert problems(path, partial=True) == []


def test_another_number_of_queries_needs_the_data_s_provenance(tmp_path: Path) -> None:
    content = report(n=500)
    assert problems(write(tmp_path / "x.json", content)) == []
    del content["provenance"]
    lines = problems(write(tmp_path / "y.json", content))
    assert len(lines) == 36
    assert lines[0] == "ImageNet-1K: 500 queries, the task has 1000"


def test_demo_results_never_enter(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", report(data={"kind": "demo"}, n=20))
    assert problems(path) == ["these are demo results, which never enter a leaderboard"]
    assert problems(path, demo=True) == []


@pytest.mark.parametrize("name", [None, "", "  ", 5, "a\nb", "abc\u202edef", "x" * 201])
def test_a_model_s_name_is_a_line_of_text(tmp_path: Path, name: object) -> None:
    content = report()
    content["metadata"]["model_name"] = name
    (line,) = problems(write(tmp_path / "x.json", content))
    assert line.startswith("metadata: model_name")


@pytest.mark.parametrize("name", ["org/model", 'a "b" <c>', "😀 👩‍💻", "نموذج", "模型"])
def test_every_script_and_sign_may_be_in_a_name(tmp_path: Path, name: str) -> None:
    assert problems(write(tmp_path / "x.json", report(name=name))) == []


def test_stated_averages_are_recomputed_to_half_a_digit(tmp_path: Path) -> None:
    content = report()
    overall = 100 * np.mean([scores["hit@1"] for scores in content["metrics"]["image"].values()])
    content["provenance"]["stated_averages"] = {"overall": overall + 0.05}
    assert problems(write(tmp_path / "x.json", content)) == []
    content["provenance"]["stated_averages"] = {"overall": overall + 0.06}
    (line,) = problems(write(tmp_path / "x.json", content))
    assert line.startswith("stated overall average")


def test_ranks_that_do_not_give_the_metrics_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=("CIRR", "EDIS"))
    ranks = read_ranks(run / "EDIS.ranks.parquet")["EDIS"]
    ranks.rank[np.flatnonzero(ranks.rank == 9)[0]] = 10
    write_ranks(run / "EDIS.ranks.parquet", ranks)
    lines = problems(run, partial=True)
    assert len(lines) == 4  # the reciprocal rank and the gain at ten, under both of their names
    assert all(line.startswith("EDIS: ") and "@10" in line and "its ranks make it" in line for line in lines)


def test_ranks_of_another_number_of_queries_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=("CIRR",))
    write_ranks(run / "CIRR.ranks.parquet", random_ranks(0, 999))
    assert problems(run, partial=True) == ["CIRR: 999 ranks for 1000 scored queries"]


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("rank", 0, "a rank is below 1"),
        ("tied", -1, "a count or a position is below 0"),
        ("tied", 99, "a rank is not above its number of ties"),
    ],
)
def test_ranks_that_can_t_be_true_are_found(tmp_path: Path, column: str, value: int, problem: str) -> None:
    path, ranks = write(tmp_path / "x.json", report(("CIRR",))), random_ranks(0)
    getattr(ranks, column)[3] = value
    write_submission_ranks(ranks_path(path), {"CIRR": ranks})
    assert problems(path, partial=True) == [f"CIRR: {problem}"]


def test_ranks_without_scores_are_found(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=("CIRR",))
    write_ranks(run / "EDIS.ranks.parquet", random_ranks(1))
    assert problems(run, partial=True) == ["EDIS: there are ranks but no scores"]


def test_exit_codes_tell_wrong_from_unreadable(tmp_path: Path) -> None:
    good = write(tmp_path / "good.json", report(name="one"))
    wrong = write(tmp_path / "wrong.json", report(name="two", tasks=NAMES[:3]))
    cut = write(tmp_path / "cut.json", '{"metadata"')
    assert [found.exit_code for found in check_files([good, wrong, cut])] == [0, 1, 2]


def test_two_files_of_one_model_are_found(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.json", report(name="same")) for name in "ab"]
    first, second = check_files(files)
    assert first.problems == ()
    assert second.problems == (f"{files[0]} is of the same model, 'same'",)


def test_a_name_that_is_no_text_is_found_in_each_file(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{name}.json", report(metadata={"model_name": ["x"]})) for name in "ab"]
    assert [found.problems for found in check_files(files)] == [("metadata: model_name is missing",)] * 2


def test_broken_ranks_are_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", report())
    ranks_path(path).write_bytes(b"PAR1 no more")
    (found,) = check_files([path])
    assert found.exit_code == 2
    assert "can't be read as per-query ranks" in found.problems[0]
