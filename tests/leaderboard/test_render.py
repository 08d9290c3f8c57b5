import csv
import io
from pathlib import Path

import pytest
from support.runs import NAMES, report, result, write

from mmeb.leaderboard.entries import load_board
from mmeb.leaderboard.render import run_table, table_csv
from mmeb.results import published
from mmeb.results.averages import averages
from mmeb.results.schema import RunResult, TaskResult
from mmeb.tasks import GROUPS


def last_column(table: str) -> dict[str, str]:
    return {line.split()[0]: line.split()[-1] for line in table.splitlines() if line and "--" not in line}


def test_a_run_s_table_has_all_tasks_and_groups() -> None:
    shown = last_column(run_table(result()))
    assert set(NAMES) <= shown.keys()
    assert {"Classification", "VQA", "Retrieval", "Grounding", "IND", "OOD", "Overall"} <= shown.keys()
    assert "." in shown["Overall"]


def test_a_group_with_missing_tasks_shows_how_many_it_has() -> None:
    shown = last_column(run_table(result(tasks=NAMES[:12])))
    assert shown["Overall"] == "12/36"
    assert shown["VQA"] == "2/10"
    assert "." in shown["Classification"]


def test_scores_are_percent_with_halves_rounded_up_beside_the_ties() -> None:
    scored = TaskResult("CIRR", {"hit@1": 0.4465}, 2000, 2000, {"ties": 7})
    line = next(line for line in run_table(RunResult({}, {"CIRR": scored})).splitlines() if line.startswith("CIRR"))
    assert line.split() == ["CIRR", "retrieval", "IND", "44.7", "7"]


def test_a_task_of_one_s_own_comes_last_and_enters_no_mean() -> None:
    own = TaskResult("Cats", {"hit@1": 0.0}, 10, 10)
    table = run_table(RunResult({}, {"Cats": own, **result().tasks}))
    assert table.splitlines()[38].split()[:3] == ["Cats", "own", "task"]
    assert last_column(table)["Overall"] == last_column(run_table(result()))["Overall"]


def test_a_demo_run_says_so() -> None:
    assert run_table(result(data={"kind": "demo"})).startswith("Demo results")
    assert "Demo" not in run_table(result())


def test_a_run_on_a_part_of_the_queries_says_so() -> None:
    part = TaskResult("CIRR", {"hit@1": 0.5}, 10, 1000)
    assert run_table(RunResult({}, {"CIRR": part})).startswith("Only a part of the queries was scored")


def test_the_csv_has_exactly_the_columns_and_every_mean_is_of_the_tasks_beside_it(tmp_path: Path) -> None:
    published.write_all(tmp_path)
    write(tmp_path / "part.json", report(name='odd, "name"\t', tasks=NAMES[:30]))
    read = list(csv.DictReader(io.StringIO(table_csv(load_board(tmp_path)))))
    assert list(read[0]) == ["model", *GROUPS, *NAMES]
    assert len(read) == 34
    for row in read:
        scores = {name: float(row[name]) for name in NAMES if row[name]}
        for group, mean in averages(scores).items():
            assert row[group] == "" if mean is None else float(row[group]) == pytest.approx(mean, abs=1e-9)
    assert read[0]["overall"] == "80.12222222222222"
    assert read[13]["model"] == 'odd, "name"'
