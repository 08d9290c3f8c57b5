"""The demo: the official layout, all 36 tasks, the same bytes from the same seed."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names
from PIL import Image

from mmeb.data.dataset import load_eval
from mmeb.data.source import open_source
from mmeb.data.train.dataset import open_train
from mmeb.demo import demo_folder, write_demo
from mmeb.errors import MmebError
from mmeb.tasks import TASKS, MetaTask, Task, get_task
from mmeb.tasks.train_subsets import TRAIN_SUBSETS

# In another process: a `write_demo` that writes a few rows only.
_SMALL = (
    "from functools import partial; from mmeb.demo import writer; "
    "write_demo = partial(writer.write_demo, eval_rows=2, train_rows=3)"
)


@pytest.fixture(scope="module")
def demo() -> Path:
    return demo_folder()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_lies_as_the_official_repositories_do(demo: Path) -> None:
    evaluation, training = demo / "MMEB-eval", demo / "MMEB-train"
    for task in TASKS:
        rows = pq.read_table(evaluation / task.name / "test-00000-of-00001.parquet")
        assert rows.column_names == ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"]
    for subset in TRAIN_SUBSETS:
        for split in ("original", "diverse_instruction"):
            rows = pq.read_table(training / subset / f"{split}-00000-of-00001.parquet")
            columns = ["qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path"]
            assert rows.column_names == columns
        with zipfile.ZipFile(training / "images_zip" / f"{subset}.zip") as archive:
            assert all(name.startswith(f"{subset}/Train/") for name in archive.namelist())
    assert sorted(path.name for path in (training / "images_zip").iterdir()) == sorted(
        f"{s}.zip" for s in TRAIN_SUBSETS
    )


def test_its_marker_says_what_made_it(demo: Path) -> None:
    for folder in (demo, demo / "MMEB-eval"):
        assert json.loads((folder / "mmeb-demo.json").read_text())["seed"] == 0
    assert open_source(demo).describe().kind == "demo"
    assert open_source(demo / "MMEB-eval").describe().kind == "demo"


def test_its_cards_name_every_subset_for_the_datasets_library(demo: Path) -> None:
    assert sorted(get_dataset_config_names(str(demo / "MMEB-eval"))) == sorted(task.name for task in TASKS)
    assert sorted(get_dataset_config_names(str(demo / "MMEB-train"))) == sorted(TRAIN_SUBSETS)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_has_the_official_strings_and_modalities(demo: Path, task: Task) -> None:
    dataset = load_eval(task, open_source(demo))
    assert dataset.n_rows == 60
    assert dataset.notes == []
    assert {item.instruction for item in dataset.queries} == {task.query_instruction}
    assert {item.instruction for item in dataset.candidates} == {task.target_instruction}
    assert {item.modality for item in dataset.queries} == {task.query}
    assert {item.modality for item in dataset.candidates} == {task.target}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_no_candidate_stands_twice_in_a_row(demo: Path, task: Task) -> None:
    dataset = load_eval(task, open_source(demo))
    for row in dataset.candidate_ids:
        kept = row[row >= 0]
        assert len(np.unique(kept)) == len(kept)
        assert len(kept) == 2 if task.name == "HatefulMemes" else len(kept) >= 15


def test_classification_ranks_all_classes(demo: Path) -> None:
    for task in TASKS:
        if task.meta_task is MetaTask.CLASSIFICATION:
            rows = pq.read_table(demo / "MMEB-eval" / task.name / "test-00000-of-00001.parquet").to_pylist()
            assert len({frozenset(row["tgt_text"]) for row in rows}) == 1
    assert len(rows[0]["tgt_text"]) == 24


def test_a_grounding_candidate_is_a_piece_of_the_query_image(demo: Path) -> None:
    dataset = load_eval(get_task("RefCOCO"), open_source(demo))
    query, crop = dataset.queries[0].image, dataset.candidates[dataset.candidate_ids[0, 0]].image
    assert query is not None
    assert crop is not None
    whole, piece = np.asarray(query.rgb(), dtype=float), np.asarray(crop.rgb(), dtype=float)
    height, width = piece.shape[:2]
    windows = np.lib.stride_tricks.sliding_window_view(whole, piece.shape)[:, :, 0]
    assert (
        np.abs(windows[..., : height // 2, : width // 2, :] - piece[: height // 2, : width // 2])
        .mean(axis=(2, 3, 4))
        .min()
        < 8
    )  # the two were compressed apart


def test_its_images_have_the_modes_that_real_ones_have(demo: Path) -> None:
    with zipfile.ZipFile(demo / "MMEB-eval" / "images.zip") as archive:
        modes = {Image.open(io.BytesIO(archive.read(name))).mode for name in archive.namelist()}
    assert modes == {"RGB", "L", "P", "RGBA"}


def test_the_same_seed_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    for name, hash_seed in (("a", "1"), ("b", "2")):
        code = f"from pathlib import Path; {_SMALL}; write_demo(Path({str(tmp_path / name)!r}), seed=7)"
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hash_seed}, check=True)
    first, second = _files(tmp_path / "a"), _files(tmp_path / "b")
    assert sorted(first) == sorted(second)
    assert [name for name in first if first[name] != second[name]] == []


def test_another_seed_draws_other_pictures(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_demo(tmp_path / str(seed), seed=seed, eval_rows=2, train_rows=3)
    for name in ("MMEB-eval/images.zip", "MMEB-train/images_zip/CIRR.zip"):
        assert (tmp_path / "0" / name).read_bytes() != (tmp_path / "1" / name).read_bytes()


def test_diverse_instructions_ask_the_same_in_other_words(demo: Path) -> None:
    (original,) = open_train(demo, ["CIRR"])
    (diverse,) = open_train(demo, ["CIRR"], split="diverse_instruction")
    assert [pair.positives for pair in original] == [pair.positives for pair in diverse]
    assert len({pair.query.prompt[:40] for pair in diverse}) >= 3
    assert len({pair.query.prompt[:40] for pair in original}) == 1


def test_two_processes_that_make_the_demo_at_once_agree(tmp_path: Path) -> None:
    code = f"from mmeb.demo import folder; {_SMALL}; folder.write_demo = write_demo; print(folder.demo_folder())"
    environment = {**os.environ, "MMEB_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", code]
    makers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = [maker.communicate(timeout=300)[0].strip() for maker in makers]
    assert folders[0] == folders[1]
    assert [path.name for path in tmp_path.iterdir()] == [Path(folders[0]).name]
    assert (Path(folders[0]) / "MMEB-train" / "README.md").is_file()


def test_a_cache_that_cannot_be_written_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MMEB_CACHE", str(tmp_path / "file"))
    with pytest.raises(MmebError, match="set MMEB_CACHE"):
        demo_folder()
