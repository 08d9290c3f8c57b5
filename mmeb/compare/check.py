"""Whether a run has lost against a baseline, beyond the noise of repeated runs."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from mmeb.compare.compare import Comparison, Method, TaskDifference, compare
from mmeb.compare.sides import Side, load_sides
from mmeb.compare.table import points, probability
from mmeb.errors import MmebError
from mmeb.results.averages import one_decimal
from mmeb.results.store import RESULTS_FILE, write_submission
from mmeb.results.text import plain


@dataclass(frozen=True)
class Rule:
    """A run fails that loses more than `tolerance` points overall, or on any task more than `task_tolerance` points
    with a p, corrected for all tasks, below `alpha`.

    Published repetitions of one checkpoint differ by at most 0.12 points overall, and by up to 1.2 on a task, by few
    queries that all went one way, which a test of chance alone takes for real.
    """

    tolerance: float = 0.5
    task_tolerance: float = 1.5
    alpha: float = 0.05


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check: `fallen` tasks, and whether the overall mean fell (`overall_fell`)."""

    comparison: Comparison
    rule: Rule
    overall_fell: bool
    fallen: tuple[TaskDifference, ...]

    @property
    def passed(self) -> bool:
        return not self.overall_fell and not self.fallen

    @property
    def failures(self) -> dict[str, str]:
        """What fell, a plain sentence by the name of the mean or task."""
        sentences = {}
        mean = self.comparison.mean()
        if self.overall_fell:
            sentences[mean.title] = (
                f"{mean.title} fell by {-(mean.difference or 0):.2f} points, from {mean.first:.2f} to "
                f"{mean.second:.2f}; {self.rule.tolerance:g} may be lost."
            )
        for task in self.fallen:
            sentences[task.task] = (
                f"{task.task} fell by {one_decimal(-task.difference)} points, from {one_decimal(task.first)} to "
                f"{one_decimal(task.second)} (p {probability(task.p or 0)} after correction)."
            )
        return sentences


def check(baseline: Side, run: Side, rule: Rule) -> Verdict:
    """Compare `run` with `baseline` by `rule`.

    Raises MmebError where the two can't be compared: other tasks, other data, demo against real.
    """
    comparison = compare(baseline, run, bootstrap=False)
    for names, lacking in ((comparison.only_first, run), (comparison.only_second, baseline)):
        if names:
            raise MmebError(f"{lacking.label} lacks {_listed(names)}: check a run of the baseline's tasks.")
    if problems := [task for task in comparison.tasks if task.method is Method.NONE]:
        named = _listed([task.task for task in problems])
        raise MmebError(
            f"The run and its baseline can't be compared on {named} ({problems[0].problem}): "
            "score the data of the baseline, or make a new baseline."
        )
    lost = round(-(comparison.mean().difference or 0), 9)  # without the error of binary sums
    fallen = tuple(
        task
        for task in comparison.tasks
        if task.p is not None and task.p < rule.alpha and -task.difference > rule.task_tolerance
    )
    return Verdict(comparison, rule, lost > rule.tolerance, fallen)


def write_baseline(run: Path, baseline: Path) -> None:
    """Keep the scores and ranks of `run` as the file `baseline` and, beside it, its ranks.

    Raises MmebError where `run` can't be read, and where `baseline` is a folder or a run's own results.
    """
    if baseline.is_dir() or baseline.suffix != ".json" or baseline.name == RESULTS_FILE:
        raise MmebError(f"A new baseline is a .json file outside of any run folder, not {baseline}.")
    (side,) = load_sides([run])
    write_submission(baseline, side.result.to_json(), side.ranks)


def verdict_text(verdict: Verdict) -> str:
    """What fell, as a table, and the verdict in one line."""
    comparison, rule = verdict.comparison, verdict.rule
    mean = comparison.mean()
    summary = (
        f"{mean.title}: {mean.first:.2f} in the baseline, {mean.second:.2f} in the run "
        f"({mean.difference:+.2f}; {rule.tolerance:g} may be lost)."
    )
    lower = sorted((task for task in comparison.tasks if task.difference < 0), key=lambda task: task.difference)
    rows = [
        (
            plain(task.task),
            one_decimal(task.first),
            one_decimal(task.second),
            points(task.difference),
            probability(task.p or 0),
            "FELL" if task in verdict.fallen else "",
        )
        for task in lower
    ]
    headers = ("task", "baseline", "run", "difference", "p", "")
    align = ("left", "right", "right", "right", "right", "left")
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True, colalign=align)
    fell = ["the overall mean"] if verdict.overall_fell else []
    if verdict.fallen:
        fell.append(f"{len(verdict.fallen)} task{'s' if len(verdict.fallen) > 1 else ''}")
    result = f"FAILED: {' and '.join(fell)} fell." if fell else "PASSED: nothing fell by more than repeated runs do."
    return "\n\n".join([*([table] if rows else []), *comparison.notes, summary, result])


def junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML: a test case for the overall mean, and one for each task."""
    names = [verdict.comparison.mean().title, *(task.task for task in verdict.comparison.tasks)]
    failures = verdict.failures
    counts = {"tests": str(len(names)), "failures": str(len(failures)), "errors": "0"}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": "mmeb check", **counts})
    for name in names:
        case = ET.SubElement(suite, "testcase", {"classname": "mmeb.check", "name": plain(name)})
        if name in failures:
            failure = ET.SubElement(case, "failure", {"message": plain(failures[name])})
            failure.text = plain(f"{verdict.comparison.second} against {verdict.comparison.first}: {failures[name]}")
    ET.indent(suites)
    document: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def github_annotations(verdict: Verdict) -> list[str]:
    """The failures as workflow commands that GitHub shows on the run and the pull request."""
    return [f"::error title={_property(name)} fell::{_data(text)}" for name, text in verdict.failures.items()]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more tasks"
