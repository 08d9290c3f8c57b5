import pytest

from mmeb.results.averages import averages, coverage, percent, round_half_up
from mmeb.tasks import GROUPS, TASKS


def test_the_groups_have_the_benchmark_s_sizes_and_order() -> None:
    assert {group: len(tasks) for group, tasks in GROUPS.items()} == {
        "overall": 36,
        "ind": 20,
        "ood": 16,
        "classification": 10,
        "vqa": 10,
        "retrieval": 12,
        "grounding": 4,
    }
    assert list(averages({})) == list(GROUPS)


def test_the_overall_average_is_over_tasks_and_not_over_meta_tasks() -> None:
    scores = {task.name: 100.0 if task.meta_task == "grounding" else 0.0 for task in TASKS}
    assert averages(scores)["overall"] == pytest.approx(400 / 36)


def test_a_group_with_a_missing_member_has_no_average() -> None:
    scores = {task.name: 50.0 for task in TASKS if task.name != "EDIS"}
    means = averages(scores)
    assert [group for group, mean in means.items() if mean is None] == ["overall", "ood", "retrieval"]
    assert means["classification"] == 50
    assert coverage(scores) == (35, 36)
    assert coverage(scores, "retrieval") == (11, 12)


def test_a_task_of_one_s_own_enters_no_average() -> None:
    scores = {task.name: 50.0 for task in TASKS}
    assert averages({**scores, "MyTask": 0.0}) == averages(scores)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(44.65, 44.7), (44.64999999999999, 44.7), (44.6499, 44.6), (0.05, 0.1), (2.5, 2.5), (99.95, 100.0)],
)
def test_halves_are_rounded_up_whatever_their_binary_form(value: float, shown: float) -> None:
    assert round_half_up(value) == shown


def test_percent_has_no_binary_dust() -> None:
    assert [percent(score / 1000) for score in range(1001)] == [score / 10 for score in range(1001)]
