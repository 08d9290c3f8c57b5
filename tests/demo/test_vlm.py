"""The small Qwen2-VL with random weights, on which the road from training to a table is shown."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration

import mmeb
from mmeb.data.dataset import load_eval
from mmeb.data.source import open_source
from mmeb.demo import demo_folder
from mmeb.demo.vlm import write_demo_vlm
from mmeb.tasks import get_tasks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo-vlm")
    write_demo_vlm(folder)
    return folder


def test_it_is_the_same_whenever_it_is_made(folder: Path, tmp_path: Path) -> None:
    write_demo_vlm(tmp_path)
    first, second = (load_file(path / "model.safetensors") for path in (folder, tmp_path))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (folder / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_the_library_loads_it_as_any_other_checkpoint(folder: Path) -> None:
    model, report = Qwen2VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) < 2.5e6


def test_its_tokenizer_gives_every_text_of_the_demo_back(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    (task,) = get_tasks("N24News")
    for item in load_eval(task, open_source("demo")).queries[:50]:
        assert tokenizer.decode(tokenizer(item.text).input_ids) == item.text


def test_it_is_loaded_by_name_and_embeds() -> None:
    model = mmeb.load_model("demo-vlm")
    (task,) = get_tasks("RefCOCO")
    items = load_eval(task, open_source(demo_folder())).queries[:4]
    vectors = mmeb.encode(model, items)
    assert vectors.shape == (4, model.dim)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
