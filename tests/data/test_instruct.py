import json
from typing import Any

import pytest
from support.paths import GOLDEN

from mmeb.data.rows import read_rows
from mmeb.tasks import PLACEHOLDER, TASKS, Task, get_task
from mmeb.tasks.instruct import query_prompt, target_prompt

# The reference's parsers, with a task that each of them reads; `phi3_v` keeps the placeholder as it is.
_PARSERS = {
    "image_cls_dataset": "ImageNet-1K",
    "image_qa_dataset": "OK-VQA",
    "image_i2t_eval": "MSCOCO_i2t",
    "image_t2i_eval": "WebQA",
    "image_i2i_vg_dataset": "RefCOCO-Matching",
}
_CASES = [case for case in json.loads((GOLDEN / "v2_texts.json").read_text()) if case["backbone"] == "phi3_v"]


def _task(case: dict[str, Any]) -> Task:
    return get_task(case["dataset_name"] if case["dataset_name"] == "VisDial" else _PARSERS[case["parser"]])


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case['parser']}-{case['dataset_name']}")
def test_the_strings_are_those_that_the_main_branch_builds(case: dict[str, Any], write_rows: Any) -> None:
    rows = read_rows([write_rows([case["inp"]])], _task(case))
    assert [str(rows.query.prompts[code]) for code in rows.query.prompt_codes] == case["query_text"]
    assert [str(rows.candidate.prompts[code]) for code in rows.candidate.prompt_codes] == case["cand_text"]


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case['parser']}-{case['dataset_name']}")
def test_the_rows_own_instruction_and_text_are_the_items(case: dict[str, Any], write_rows: Any) -> None:
    row = case["inp"]
    rows = read_rows([write_rows([row])], _task(case))
    assert rows.query.prompts[0].instruction == row["qry_inst"].replace(PLACEHOLDER, "").strip()
    assert rows.query.prompts[0].text.strip() == row["qry_text"]
    assert rows.candidate.prompts[rows.candidate.prompt_codes[0]].text == row["tgt_text"][0]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_query_equals_the_official_row_with_the_instruction_in_it(task: Task) -> None:
    sample = json.loads((GOLDEN / "first_samples.json").read_text())["samples"][task.name]["query"]
    placeholder = f"{PLACEHOLDER}\n" if sample.startswith(PLACEHOLDER) else ""
    text = sample.removeprefix(placeholder).removeprefix(task.query_instruction).strip()
    assert str(query_prompt(task, placeholder + task.query_instruction, text)) == sample


def test_captions_behind_an_empty_first_one_are_left_out_as_in_the_reference() -> None:
    task = get_task("MSCOCO")
    prompts = [target_prompt(task, f"{PLACEHOLDER}\nRepresent it", text, has_caption=False) for text in ("", "a dog")]
    assert [str(prompt) for prompt in prompts] == [f"{PLACEHOLDER}\nRepresent it"] * 2


def test_rows_of_an_image_to_text_task_need_no_target_instruction_or_images(write_rows: Any) -> None:
    row = {"qry_inst": f"{PLACEHOLDER}\nName it", "qry_text": "", "qry_img_path": "a.jpg", "tgt_text": ["dog", "cat"]}
    rows = read_rows([write_rows([row])], get_task("VOC2007"))
    assert [str(prompt) for prompt in rows.candidate.prompts] == ["dog", "cat"]
    assert rows.image_paths() == ["a.jpg"]
