import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.paths import ROOT

from mmeb.data.dataset import EvalDataset, load_eval
from mmeb.data.item import Role
from mmeb.data.source import open_source
from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER, get_task, get_tasks

_SUBSETS = "ImageNet-1K,OK-VQA,CIRR,MSCOCO_t2i,MSCOCO_i2t,NIGHTS,WebQA,MSCOCO,RefCOCO-Matching"


def _load(name: str, folder: Path) -> EvalDataset:
    return load_eval(get_task(name), open_source(folder))


@pytest.mark.parametrize("task", get_tasks(_SUBSETS), ids=lambda task: task.name)
def test_every_row_is_there_word_for_word(golden: Path, task: Any) -> None:
    data = load_eval(task, open_source(golden / "data"))
    rows = pd.read_parquet(golden / "data" / "MMEB-eval" / task.name / "test-00000-of-00001.parquet")
    assert [data.queries[i].prompt for i in data.query_ids] == rows["qry_text"].tolist()
    for ids, texts, paths in zip(data.candidate_ids, rows["tgt_text"], rows["tgt_img_path"], strict=True):
        items = [data.candidates[i] for i in ids]
        assert [item.prompt for item in items] == texts.tolist()
        assert [item.image.key if item.image else "" for item in items] == [
            str(golden / "data" / "images" / path) if path else "" for path in paths
        ]
    assert {item.role for item in data.queries} == {Role.QUERY}
    assert {item.role for item in data.candidates} == {Role.CANDIDATE}


@pytest.mark.parametrize("task", get_tasks(_SUBSETS), ids=lambda task: task.name)
def test_items_are_unique(golden: Path, task: Any) -> None:
    data = load_eval(task, open_source(golden / "data"))
    assert len(set(data.queries)) == len(data.queries)
    assert len(set(data.candidates)) == len(data.candidates) < data.candidate_ids.size


def test_two_texts_on_one_image_are_two_candidates(official: Path, write_rows: Any) -> None:
    row = {"qry_text": "Where?", "qry_img_path": "", "tgt_img_path": ["set0/im000.png", "images/set0/im000.png"]}
    write_rows([{**row, "tgt_text": ["here", "there"]}], "official/WebQA/test-00000-of-00001.parquet")
    assert _load("WebQA", official).candidate_ids.tolist() == [[0, 1]]


def test_two_spellings_of_one_path_are_one_image(official: Path, write_rows: Any) -> None:
    row = {"qry_text": "Where?", "qry_img_path": "", "tgt_img_path": ["set0/im000.png", "images/set0/im000.png"]}
    write_rows([{**row, "tgt_text": ["here", "here"]}], "official/WebQA/test-00000-of-00001.parquet")
    assert _load("WebQA", official).candidate_ids.tolist() == [[0, 0]]


def test_a_prompt_with_and_one_without_its_placeholder_are_one_candidate(official: Path, write_rows: Any) -> None:
    row = {"qry_text": "Where?", "qry_img_path": "", "tgt_img_path": ["set0/im000.png"] * 2}
    write_rows([{**row, "tgt_text": ["here", f"{PLACEHOLDER}\nhere"]}], "official/WebQA/test-00000-of-00001.parquet")
    assert _load("WebQA", official).candidate_ids.tolist() == [[0, 0]]


def test_the_ground_truth_is_in_column_0_and_short_rows_are_padded(write_rows: Any, tmp_path: Path) -> None:
    rows = [
        {"qry_text": "a", "qry_img_path": "", "tgt_text": ["x", "y", "z"], "tgt_img_path": [""] * 3},
        {"qry_text": "b", "qry_img_path": "", "tgt_text": ["z"], "tgt_img_path": [""]},
    ]
    write_rows(rows, "GQA/test-00000-of-00001.parquet")
    data = _load("GQA", tmp_path)
    assert data.candidate_ids.tolist() == [[0, 1, 2], [2, -1, -1]]
    assert data.candidate_ids.dtype == data.query_ids.dtype == np.int32


def test_instruction_and_text_are_told_apart(golden: Path) -> None:
    query = _load("OK-VQA", golden / "data").queries[0]
    assert query.instruction == "Represent the given image with the following question:"
    assert query.text == "What is the color of the dog ?"


def test_the_fingerprint_is_the_same_wherever_the_data_lies(
    golden: Path, official: Path, tmp_path: Path, pack_images: Callable[[Path, str], Path]
) -> None:
    jsonl = tmp_path / "jsonl"
    for name in ("WebQA", "CIRR"):
        rows = pd.read_parquet(golden / "data" / "MMEB-eval" / name / "test-00000-of-00001.parquet")
        jsonl.mkdir(exist_ok=True)
        rows["tgt_img_path"] = rows["tgt_img_path"].map(lambda paths: [f"MMEB/{path}" for path in paths])
        rows.to_json(jsonl / f"{name}.jsonl", orient="records", lines=True)
    pack_images(jsonl / "mmeb_v1.tar.gz", "MMEB/")
    for name in ("WebQA", "CIRR"):
        prints = {_load(name, folder).fingerprint for folder in (golden / "data", official, jsonl)}
        assert len(prints) == 1
    assert _load("WebQA", official).fingerprint != _load("CIRR", official).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"qry_text": "How?"},
        {"qry_img_path": "set0/im003.png"},
        {"tgt_text": ["two", "one"]},
        {"tgt_text": ["one", "one"]},
        {"tgt_img_path": ["set0/im003.png", "set0/im000.png"]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_fingerprint_differs_where_a_row_does(official: Path, write_rows: Any, change: dict[str, Any]) -> None:
    row = {
        "qry_text": f"{PLACEHOLDER}\nWhere?",
        "qry_img_path": "set0/im000.png",
        "tgt_text": ["one", "two"],
        "tgt_img_path": ["set0/im000.png", "set0/im003.png"],
    }
    prints = set()
    for changed in (row, {**row, **change}):
        write_rows([changed], "official/OVEN/test-00000-of-00001.parquet")
        prints.add(_load("OVEN", official).fingerprint)
    assert len(prints) == 2


def test_oddities_are_noted_with_their_count(golden: Path) -> None:
    notes = _load("WebQA", golden / "data").notes
    assert notes == [
        "20 of 20 unique queries have another instruction than the registry's",
        "1 of 20 rows list a copy of the ground truth among the other candidates",
    ]
    assert _load("OK-VQA", golden / "data").notes == []


def test_a_missing_image_is_an_error_that_names_subset_row_and_file(official: Path, change_row: Any) -> None:
    change_row(official / "CIRR" / "test-00000-of-00001.parquet", 3, ["set9/gone.png"])
    with pytest.raises(MmebError, match=r"CIRR, row 3: the image set9/gone\.png is missing"):
        _load("CIRR", official)


def test_an_image_path_that_leaves_the_folder_is_refused(official: Path, write_rows: Any) -> None:
    row = {"qry_text": f"{PLACEHOLDER}\nWhat?", "qry_img_path": "../secret.png", "tgt_text": ["yes"]}
    write_rows([row], "official/GQA/test-00000-of-00001.parquet")
    with pytest.raises(MmebError, match=r"GQA, row 0: the image path '\.\./secret\.png' leaves the folder"):
        _load("GQA", official)


def test_two_placeholders_with_one_image_are_an_error_that_names_the_row(official: Path, write_rows: Any) -> None:
    row = {"qry_text": f"{PLACEHOLDER} or {PLACEHOLDER}?", "qry_img_path": "set0/im000.png", "tgt_text": ["yes"]}
    write_rows([row], "official/GQA/test-00000-of-00001.parquet")
    with pytest.raises(MmebError, match="GQA, row 0: A prompt may hold one"):
        _load("GQA", official)


@pytest.mark.parametrize("images", ["pictures", "pictures.zip"])
def test_a_task_of_ones_own_is_read_from_its_own_files(
    tmp_path: Path, golden: Path, pack_images: Callable[[Path], Path], images: str
) -> None:
    folder = tmp_path / "mine"
    if images.endswith(".zip"):
        pack_images(folder / images)
    else:
        shutil.copytree(golden / "data" / "images", folder / images)
    row = {"qry_text": f"{PLACEHOLDER}\nName it. Please\n", "qry_img_path": "set0/im000.png", "tgt_text": ["a", "b"]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "mine.yaml").write_text(
        "name: Mine\nquery: image+text\ntarget: text\nquery_instruction: Name it.\nrows: rows.jsonl\n"
        f"images: {images}\n"
    )
    (task,) = get_tasks(str(folder / "mine.yaml"))
    data = load_eval(task, open_source(golden / "data"))
    assert (data.task, data.source.kind, data.source.repository) == ("Mine", "folder", str(folder / "rows.jsonl"))
    assert (data.queries[0].instruction, data.queries[0].text) == ("Name it.", "Please")
    assert data.queries[0].image is not None
    assert data.queries[0].image.read() == (golden / "data" / "images" / "set0" / "im000.png").read_bytes()


def test_the_documented_example_is_a_task(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "add-data.md").read_text(encoding="utf-8")
    for name, block in (("signs.yaml", "```yaml\n"), ("signs.jsonl", "```json\n")):
        (tmp_path / name).write_text(document.split(block)[1].split("```")[0])
    with zipfile.ZipFile(tmp_path / "signs.zip", "w") as images:
        images.writestr("a/001.jpg", b"")
    (task,) = get_tasks(str(tmp_path / "signs.yaml"))
    data = load_eval(task, open_source(tmp_path))
    assert [item.text for item in data.candidates] == ["stop", "give way", "no entry"]
    assert (data.queries[0].instruction, data.queries[0].text) == (task.query_instruction, "")
    assert data.notes == []


def test_the_first_rows_can_be_taken(golden: Path) -> None:
    data = _load("CIRR", golden / "data")
    head = data.head(3)
    assert [head.queries[i] for i in head.query_ids] == [data.queries[i] for i in data.query_ids[:3]]
    assert [head.candidates[i] for i in head.candidate_ids[2]] == [data.candidates[i] for i in data.candidate_ids[2]]
