"""`mmeb compare` on run folders, submissions, bare files and published tables."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.command import mmeb
from support.runs import NAMES, flipped, hits_of, write_run

from mmeb.leaderboard.submission import submit

FEW = ("ImageNet-1K", "GQA", "CIRR", "RefCOCO")


def rows_of(out: str) -> dict[str, list[str]]:
    """The cells of each line of the table by its first word."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}


def test_a_real_difference_has_stars_and_noise_has_none(tmp_path: Path) -> None:
    hits = hits_of(0.5, FEW)
    a = write_run(tmp_path / "a", hits, "before")
    b = write_run(tmp_path / "b", flipped(flipped(hits, "GQA", lost=60, gained=2), "CIRR", lost=12, gained=9), "after")
    rows = rows_of(mmeb("compare", a, b).out)
    assert rows["GQA"][:3] == ["50.0", "44.2", "-5.8***"]
    assert rows["CIRR"][:3] == ["50.0", "49.7", "-0.3"]
    assert rows["CIRR"][-1] == "1.000"
    assert rows["ImageNet-1K"][2] == "0.0"


def test_means_come_with_their_interval(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    a, b = write_run(tmp_path / "a", hits), write_run(tmp_path / "b", flipped(hits, "RefCOCO", lost=100))
    (comparison,) = json.loads(mmeb("compare", a, b, "--json").out)
    groups = {group["group"]: group for group in comparison["groups"]}
    assert groups["grounding"]["difference"] == pytest.approx(-2.5)
    low, high = groups["grounding"]["interval"]
    expected = 100 * 1.96 * np.sqrt(0.1 * 0.9 / 1000) / 4  # of 100 queries in 1000, a quarter of the mean
    assert (low, high) == pytest.approx((-2.5 - expected, -2.5 + expected), abs=0.06)
    assert groups["vqa"]["interval"] == [0.0, 0.0]
    assert groups["overall"]["difference"] == pytest.approx(-10 / 36)


def test_p_is_corrected_for_the_number_of_tasks(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    a, b = write_run(tmp_path / "a", hits), write_run(tmp_path / "b", flipped(hits, "EDIS", lost=8))
    (comparison,) = json.loads(mmeb("compare", a, b, "--json").out)
    edis = next(task for task in comparison["tasks"] if task["task"] == "EDIS")
    assert edis["p"] == pytest.approx(36 * 2 * 0.5**8)
    assert (edis["lost"], edis["gained"], edis["method"]) == (8, 0, "paired")


def test_each_further_run_is_compared_with_the_first(tmp_path: Path) -> None:
    hits = hits_of(0.5, FEW)
    runs = [
        write_run(tmp_path / name, flipped(hits, "CIRR", gained=gained))
        for name, gained in (("a", 0), ("b", 100), ("c", 200))
    ]
    done = mmeb("compare", *runs)
    assert "B − A" in done.out
    assert "C − A" in done.out
    assert [cell for cell in rows_of(done.out)["CIRR"] if cell.endswith("***")] == ["+10.0***", "+20.0***"]
    assert f"A: tiny ({runs[0]})" in done.out  # one model, three runs: told apart by their places


def test_means_over_different_shared_tasks_have_a_row_each(tmp_path: Path) -> None:
    hits = {**hits_of(0.5, FEW), **hits_of(0.9, FEW[:1])}
    runs = [write_run(tmp_path / str(count), dict(list(hits.items())[:count])) for count in (4, 3, 2)]
    means = [line for line in mmeb("compare", *runs).out.splitlines() if line.startswith("Mean of")]
    assert [line.split()[:6] for line in means] == [
        ["Mean", "of", "3", "shared", "63.3", "63.3"],
        ["Mean", "of", "2", "shared", "70.0", "70.0"],
    ]


def test_a_submission_with_its_ranks_is_compared_like_its_run(tmp_path: Path) -> None:
    hits = hits_of(0.5, FEW)
    a, b = write_run(tmp_path / "a", hits, "before"), write_run(tmp_path / "b", flipped(hits, "GQA", lost=30), "after")
    submitted = submit(a, tmp_path / "results", {}, partial=True).path
    assert rows_of(mmeb("compare", submitted, b).out) == rows_of(mmeb("compare", a, b).out)


def test_without_ranks_the_counts_are_tested(tmp_path: Path) -> None:
    hits = hits_of(0.5, FEW)
    a, b = write_run(tmp_path / "a", hits, "before"), write_run(tmp_path / "b", flipped(hits, "GQA", lost=30), "after")
    bare = tmp_path / "bare.json"
    shutil.copy(a / "results.json", bare)
    done = mmeb("compare", bare, b)
    assert rows_of(done.out)["GQA"][-1] == "~0.778"
    assert "before: no per-query ranks" in done.out
    assert "***" in mmeb("compare", a, b).out


def test_a_published_table_comes_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", hits_of(0.5))
    done = mmeb("compare", run, "--published", "clip")
    assert done.out.startswith("A: CLIP (published)\nB: tiny\n")
    assert rows_of(done.out)["VOC2007"][:3] == ["50.7", "50.0", "-0.7"]
    assert rows_of(done.out)["Overall"][:3] == ["37.8", "50.0", "+12.2"]


def test_an_unknown_published_name_gets_a_hint(tmp_path: Path) -> None:
    done = mmeb("compare", write_run(tmp_path / "a", hits_of(0.5)), "--published", "CLIPP")
    assert done.code == 2
    assert "did you mean CLIP" in done.err


def test_settings_that_differ_are_listed_and_equal_ones_are_not(tmp_path: Path) -> None:
    model = {"revision": "1234", "prompt_version": 1, "dtype": "float32"}
    hits = hits_of(0.5, ("GQA",))
    a = write_run(tmp_path / "a", hits, "before", model=model, libraries={"transformers": "5.23"})
    b = write_run(
        tmp_path / "b", hits, "after", model={**model, "dtype": "bfloat16"}, libraries={"transformers": "4.46"}
    )
    rows = rows_of(mmeb("compare", a, b).out)
    assert rows["model.dtype"] == ["float32", "bfloat16"]
    assert rows["libraries.transformers"] == ["5.23", "4.46"]
    assert "model.revision" not in rows


def test_a_mean_with_missing_members_shows_how_many_there_are(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    a, b = write_run(tmp_path / "a", hits), write_run(tmp_path / "b", {name: hits[name] for name in NAMES[:12]})
    done = mmeb("compare", a, b)
    rows = rows_of(done.out)
    assert rows["Overall"] == ["12/36"]
    assert rows["Classification"][:3] == ["50.0", "50.0", "0.0"]
    assert rows["Mean"][:4] == ["of", "12", "shared", "50.0"]
    assert "Only in tiny" in done.out


def test_a_task_on_other_data_is_shown_but_not_tested(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", hits_of(0.5, ("GQA",)))
    b = write_run(tmp_path / "b", hits_of(0.4, ("GQA",)), data={"fingerprint": "0" * 16})
    done = mmeb("compare", a, b)
    assert rows_of(done.out)["GQA"] == ["50.0", "40.0", "-10.0", "not", "comparable"]
    assert "other data" in done.out


def test_a_quick_look_is_not_compared_with_a_whole_run(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", hits_of(0.5, ("GQA",)))
    b = write_run(tmp_path / "b", hits_of(0.5, ("GQA",), n=20))
    assert "1000 queries against 20" in mmeb("compare", a, b).out


def test_tasks_of_one_query_are_compared_without_interval(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, hits_of(1, ("GQA",), n=1)) for name in "ab")
    assert rows_of(mmeb("compare", a, b).out)["GQA"] == ["100.0", "100.0", "0.0", "1.000"]


def test_markdown_shows_a_name_as_it_is(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", hits_of(0.5, ("GQA",)), "a|b <script>*")
    b = write_run(tmp_path / "b", hits_of(0.3, ("GQA",)), "b\x1b[31m\nc")
    out = mmeb("compare", a, b, "--markdown").out
    assert r"a\|b \<script\>\*" in out
    assert "\x1b" not in out
    assert r"-20.0\*\*\*" in out


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"metadata": {"model_name": "x"}, "metr', "not valid JSON"),
        ('{"metadata": {"model_name": "x"}, "metrics": {"image": {"GQA": {"hit@1": NaN, "num_pred": 1000}}}}', "hit@1"),
        (
            '{"metadata": {"model_name": "x"}, "metrics": {"image": {"GQA": {"hit@1": 49.4, "num_pred": 1000}}}}',
            "percent",
        ),
        ('{"metadata": {"model_name": "x"}, "metrics": {"image": {"GQA": {"hit@1": 0.4}}}}', "num_pred"),
        ('{"metadata": {"model_name": "x"}, "metrics": {"image": {}}}', "no scores by task"),
    ],
)
def test_unusable_scores_are_refused(tmp_path: Path, content: str, sentence: str) -> None:
    a = write_run(tmp_path / "a", hits_of(0.5, ("GQA",)))
    (tmp_path / "b.json").write_text(content)
    done = mmeb("compare", a, tmp_path / "b.json")
    assert done.code == 2
    assert sentence in done.err


def test_ranks_that_belie_the_scores_are_refused(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, hits_of(0.5, ("GQA",))) for name in "ab")
    (b / "results.json").write_text((b / "results.json").read_text().replace('"hit@1": 0.5', '"hit@1": 0.6'))
    done = mmeb("compare", a, b)
    assert done.code == 2
    assert "ranks of GQA give another hit@1" in done.err


def test_demo_is_not_compared_with_real(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", hits_of(0.5), "demo model", data={"kind": "demo"})
    done = mmeb("compare", a, "--published", "CLIP")
    assert done.code == 2
    assert "demo model was scored on demo data" in done.err


def test_runs_without_a_common_task_are_refused(tmp_path: Path) -> None:
    a, b = (write_run(tmp_path / name, hits_of(0.5, (name,))) for name in ("GQA", "CIRR"))
    assert "no task in common" in mmeb("compare", a, b).err


def test_one_result_alone_is_refused(tmp_path: Path) -> None:
    done = mmeb("compare", write_run(tmp_path / "a", hits_of(0.5)))
    assert done.code == 2
    assert "--published" in done.err
