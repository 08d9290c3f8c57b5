from support.runs import NAMES, result

from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.summary import run_table


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


def test_a_custom_task_comes_last_and_enters_no_mean() -> None:
    custom = TaskResult("Cats", {"hit@1": 0.0}, 10, 10)
    table = run_table(RunResult({}, {"Cats": custom, **result().tasks}))
    assert table.splitlines()[38].split()[:3] == ["Cats", "custom", "task"]
    assert last_column(table)["Overall"] == last_column(run_table(result()))["Overall"]


def test_a_demo_run_says_so() -> None:
    assert run_table(result(data={"kind": "demo"})).startswith("Demo results")
    assert "Demo" not in run_table(result())


def test_a_run_on_a_part_of_the_queries_says_so() -> None:
    part = TaskResult("CIRR", {"hit@1": 0.5}, 10, 1000)
    assert run_table(RunResult({}, {"CIRR": part})).startswith("Only a part of the queries was scored")
