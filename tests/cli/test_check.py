"""`mmeb check`: what passes, what fails, what is refused, and how it says so."""

import xml.etree.ElementTree as ET
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.command import mmeb
from support.runs import NAMES, Hits, flipped, hits_of, ranks_of, result, write_run

from mmeb.cli.check import command
from mmeb.compare.check import Rule, check, github_annotations
from mmeb.compare.sides import Side


def side_of(hits: Hits, *, ranked: bool = True) -> Side:
    ranks = ranks_of(hits) if ranked else {}
    return Side("tiny", result(hits), ranks)


def rerun(hits: Hits, rng: np.random.Generator, lost_more: int = 0) -> dict[str, NDArray[np.bool_]]:
    """`hits` with the noise of repeated runs: on each task about ten queries change sides, either way."""
    noisy = {}
    for name, hit in hits.items():
        flips = rng.poisson(10)
        lost = rng.binomial(flips, 0.5)
        changed = hit.copy()
        changed[rng.choice(np.flatnonzero(hit), lost + lost_more, replace=False)] = False
        changed[rng.choice(np.flatnonzero(~hit), flips - lost, replace=False)] = True
        noisy[name] = changed
    return noisy


def varied_hits(rng: np.random.Generator) -> dict[str, NDArray[np.bool_]]:
    return {name: rng.random(1000) < rate for name, rate in zip(NAMES, rng.uniform(0.05, 0.95, 36), strict=True)}


def test_the_options_have_the_defaults_of_the_rule() -> None:
    defaults = {option.name: option.default for option in command.params}
    assert defaults.items() >= asdict(Rule()).items()


def test_the_noise_of_repeated_runs_passes() -> None:
    rng = np.random.default_rng(0)
    hits = varied_hits(rng)
    baseline = side_of(hits)
    verdicts = [check(baseline, side_of(rerun(hits, rng)), Rule()) for _ in range(60)]
    differences = np.array([[task.difference for task in verdict.comparison.tasks] for verdict in verdicts])
    assert 0.2 <= np.abs(differences).mean() <= 0.3  # the noise is that of the published re-runs
    assert np.abs(differences).max() >= 0.9
    assert all(verdict.passed for verdict in verdicts)


def test_the_largest_difference_of_repeated_runs_passes_even_if_all_went_one_way() -> None:
    hits = hits_of(0.5)
    verdict = check(side_of(hits), side_of(flipped(hits, "GQA", lost=12)), Rule())  # p after correction: 0.018
    assert verdict.passed


@pytest.mark.parametrize("ranked", [True, False])
def test_a_loss_of_one_point_overall_fails_every_time(ranked: bool) -> None:
    rng = np.random.default_rng(1)
    hits = varied_hits(rng)
    baseline = side_of(hits, ranked=ranked)
    for _ in range(10):
        verdict = check(baseline, side_of(rerun(hits, rng, lost_more=10), ranked=ranked), Rule())
        assert verdict.overall_fell


def test_one_task_that_falls_fails_though_the_mean_hardly_moves() -> None:
    hits = hits_of(0.5)
    verdict = check(side_of(hits), side_of(flipped(hits, "GQA", lost=40, gained=5)), Rule())
    assert not verdict.overall_fell
    assert [task.task for task in verdict.fallen] == ["GQA"]


def test_exactly_the_tolerance_may_be_lost() -> None:
    hits = hits_of(0.557)  # a score in which binary fractions leave dust
    lost = {name: np.arange(1000) < 552 for name in hits}
    assert not check(side_of(hits), side_of(lost), Rule(tolerance=0.5)).overall_fell
    assert check(side_of(hits), side_of(lost), Rule(tolerance=0.49)).overall_fell


def test_what_rises_never_fails() -> None:
    assert check(side_of(hits_of(0.5)), side_of(hits_of(0.9)), Rule(tolerance=0)).passed


def test_a_pass_is_exit_code_0(tmp_path: Path) -> None:
    baseline, run = (write_run(tmp_path / name, hits_of(0.5)) for name in ("baseline", "run"))
    done = mmeb("check", run, "--baseline", baseline, "--github")
    assert done.code == 0
    assert "PASSED" in done.out
    assert "::error" not in done.out


def test_a_loss_is_exit_code_1_and_a_table_of_what_fell(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    baseline = write_run(tmp_path / "baseline", hits)
    run = write_run(tmp_path / "run", flipped(flipped(hits, "GQA", lost=300), "CIRR", lost=5))
    done = mmeb("check", run, "--baseline", baseline)
    assert done.code == 1
    lines = [line.split() for line in done.out.splitlines()]
    assert ["GQA", "50.0", "20.0", "-30.0", "<0.001", "FELL"] in lines
    assert ["CIRR", "50.0", "49.5", "-0.5", "1.000"] in lines
    assert not any(line[:1] == ["OVEN"] for line in lines)
    assert done.out.endswith("FAILED: the overall mean and 1 task fell.\n")


def test_the_tolerances_are_options(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    baseline, run = write_run(tmp_path / "b", hits), write_run(tmp_path / "r", flipped(hits, "GQA", lost=300))
    allowed = mmeb("check", run, "--baseline", baseline, "--tolerance", "1", "--task-tolerance", "30")
    assert allowed.code == 0
    assert mmeb("check", run, "--baseline", baseline, "--tolerance", "1", "--alpha", "0").code == 0


def test_github_shows_an_annotation_for_each_thing_that_fell(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    baseline, run = write_run(tmp_path / "b", hits), write_run(tmp_path / "r", flipped(hits, "GQA", lost=300))
    out = mmeb("check", run, "--baseline", baseline, "--github").out
    annotations = [line for line in out.splitlines() if line.startswith("::error ")]
    assert annotations[0].startswith("::error title=Overall fell::Overall fell by 0.83 points")
    assert annotations[1].startswith("::error title=GQA fell::GQA fell by 30.0 points, from 50.0 to 20.0")
    assert len(annotations) == 2


def test_an_annotation_can_not_be_forged_by_a_name() -> None:
    own = "a,b::c%\n::error::forged"
    hits = {own: hits_of(0.9)["GQA"]}
    verdict = check(side_of(hits), side_of({own: hits_of(0.1)["GQA"]}), Rule())
    annotations = github_annotations(verdict)
    assert not any("\n" in line for line in annotations)
    assert annotations[-1].startswith("::error title=a%2Cb%3A%3Ac%25%0A%3A%3Aerror%3A%3Aforged fell::")


def test_junit_has_a_case_for_each_task_and_a_failure_for_what_fell(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    baseline = write_run(tmp_path / "b", hits, "<b> & \x00\uffff")
    run = write_run(tmp_path / "r", flipped(hits, "GQA", lost=300), "<r>")
    mmeb("check", run, "--baseline", baseline, "--junit", tmp_path / "report.xml")
    suite = ET.parse(tmp_path / "report.xml").getroot()[0]
    assert [case.get("name") for case in suite] == ["Overall", *NAMES]
    assert {case.get("name") for case in suite if case.find("failure") is not None} == {"Overall", "GQA"}
    assert (suite.get("tests"), suite.get("failures")) == ("37", "2")


@pytest.mark.parametrize(
    ("run_parts", "sentence"),
    [
        ({"data": {"revision": "def", "fingerprint": None}}, "other data (revision"),
        ({"data": {"fingerprint": "0" * 16}}, "other data (fingerprint"),
        ({"data": {"kind": "demo"}}, "demo data"),
    ],
)
def test_other_data_is_refused(tmp_path: Path, run_parts: dict[str, Any], sentence: str) -> None:
    hits = hits_of(0.5, ("GQA", "CIRR"))
    baseline, run = write_run(tmp_path / "b", hits), write_run(tmp_path / "r", hits, **run_parts)
    done = mmeb("check", run, "--baseline", baseline)
    assert done.code == 2
    assert sentence in done.err


@pytest.mark.parametrize(("baseline", "run"), [(NAMES, NAMES[:35]), (NAMES[:35], NAMES)])
def test_other_tasks_are_refused(tmp_path: Path, baseline: tuple[str, ...], run: tuple[str, ...]) -> None:
    first, second = (write_run(tmp_path / s, hits_of(0.5, n)) for s, n in (("b", baseline), ("r", run)))
    done = mmeb("check", second, "--baseline", first)
    assert done.code == 2
    assert "lacks Visual7W-Pointing" in done.err


def test_a_missing_baseline_is_refused(tmp_path: Path) -> None:
    done = mmeb("check", write_run(tmp_path / "r", hits_of(0.5)), "--baseline", tmp_path / "gone.json")
    assert done.code == 2
    assert "gone.json" in done.err


def test_a_few_tasks_are_checked_by_their_own_mean(tmp_path: Path) -> None:
    hits = hits_of(0.5, ("GQA", "CIRR"))
    baseline, run = write_run(tmp_path / "b", hits), write_run(tmp_path / "r", flipped(hits, "GQA", lost=11))
    done = mmeb("check", run, "--baseline", baseline)
    assert done.code == 1
    assert "Mean of 2 shared: 50.00 in the baseline, 49.45 in the run (-0.55; 0.5 may be lost)." in done.out


def test_update_keeps_a_run_as_the_baseline(tmp_path: Path) -> None:
    hits = hits_of(0.5)
    run, baseline = write_run(tmp_path / "r", hits, data={"kind": "demo"}), tmp_path / "ci" / "baseline.json"
    assert mmeb("check", run, "--baseline", baseline, "--update").code == 0
    assert sorted(path.name for path in baseline.parent.iterdir()) == ["baseline.json", "baseline.ranks.parquet"]
    worse = write_run(tmp_path / "w", flipped(hits, "GQA", lost=40, gained=5), data={"kind": "demo"})
    assert mmeb("check", run, "--baseline", baseline).code == 0
    assert mmeb("check", worse, "--baseline", baseline).code == 1


@pytest.mark.parametrize("baseline", ["", "results.json"])
def test_a_run_is_not_overwritten_by_a_new_baseline(tmp_path: Path, baseline: str) -> None:
    run, other = (write_run(tmp_path / name, hits_of(rate, ("GQA",))) for name, rate in (("r", 0.5), ("o", 0.6)))
    kept = (other / "results.json").read_bytes()
    done = mmeb("check", run, "--baseline", other / baseline, "--update")
    assert done.code == 2
    assert "is a .json file outside of any run folder" in done.err
    assert (other / "results.json").read_bytes() == kept
