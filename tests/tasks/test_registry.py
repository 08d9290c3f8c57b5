"""The 36 tasks against the real first rows, the published split, and what users type."""

import json

import pytest
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.tasks import TASKS, MetaTask, Modality, Prompt, Task, get_tasks, task_order

FIRST_SAMPLES = json.loads((GOLDEN / "first_samples.json").read_text(encoding="utf-8"))["samples"]
PUBLISHED = json.loads((GOLDEN / "published_split.json").read_text(encoding="utf-8"))


def test_the_order_is_the_benchmarks() -> None:
    assert [task.name for task in TASKS] == list(FIRST_SAMPLES)


@pytest.mark.parametrize("meta_task", list(MetaTask))
def test_meta_tasks_hold_what_the_benchmark_publishes(meta_task: MetaTask) -> None:
    assert [task.name for task in TASKS if task.meta_task is meta_task] == PUBLISHED["meta_tasks"][meta_task.value]


def test_the_split_is_the_published_one() -> None:
    assert [task.name for task in get_tasks("ind")] == PUBLISHED["ind"]
    assert [task.name for task in get_tasks("ood")] == PUBLISHED["ood"]


def test_train_subsets_are_named_as_in_mmeb_train() -> None:
    names = {task.name: task.train_subset for task in get_tasks("ind")}
    assert names.pop("ImageNet-1K") == "ImageNet_1K"
    assert all(name == subset for name, subset in names.items())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_real_first_row_is_taken_apart_and_put_together_again(task: Task) -> None:
    query, candidate = FIRST_SAMPLES[task.name]["query"], FIRST_SAMPLES[task.name]["candidate"]
    parsed = Prompt.parse(query, task.query_instruction)
    assert parsed.instruction == task.query_instruction
    assert str(parsed) == query
    assert task.query_prompt(parsed.text) == parsed
    assert bool(parsed.text) == (task.query is not Modality.IMAGE)

    parsed = Prompt.parse(candidate, task.target_instruction)
    assert parsed.instruction == task.target_instruction
    assert str(parsed) == candidate
    assert task.target_prompt(parsed.text) == parsed


def test_a_string_of_another_wording_keeps_its_bytes_and_has_no_instruction() -> None:
    prompt = "<|image_1|>\n Some other words: a dog \n"
    parsed = Prompt.parse(prompt, "Identify the object shown in the image")
    assert (str(parsed), parsed.instruction) == (prompt, "")


@pytest.mark.parametrize(
    ("typed", "count"),
    [("all", 36), ("ind", 20), ("ood", 16), ("vqa", 10), ("Retrieval", 12), ("MSCOCO*", 3), ("VOC2007,WebQA", 2)],
)
def test_tasks_are_named_by_group_glob_and_comma_list(typed: str, count: int) -> None:
    assert len(get_tasks(typed)) == count


def test_tasks_come_once_and_in_canonical_order() -> None:
    assert [task.name for task in get_tasks(["EDIS", "ImageNet_1K", "imagenet-1k", "GQA"])] == [
        "ImageNet-1K",
        "GQA",
        "EDIS",
    ]


def test_names_are_sorted_in_canonical_order_and_others_stand_behind() -> None:
    assert sorted(["Birds", "MSCOCO", "VOC2007"], key=task_order) == ["VOC2007", "MSCOCO", "Birds"]


@pytest.mark.parametrize(("typed", "hint"), [("VOC2077", "VOC2007"), ("OKVQA", "OK-VQA"), ("retreival", "retrieval")])
def test_an_unknown_name_suggests_the_nearest(typed: str, hint: str) -> None:
    with pytest.raises(MmebError, match=hint):
        get_tasks(typed)


@pytest.mark.parametrize("typed", ["", ",", "CIFAR-100", "zz*"])
def test_a_name_that_matches_nothing_is_an_error(typed: str) -> None:
    with pytest.raises(MmebError):
        get_tasks(typed)
