"""The demo's model, and the checkpoint that comes with the package."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import ROOT

import mmeb
from mmeb.data.dataset import load_eval
from mmeb.data.item import Item
from mmeb.data.source import open_source
from mmeb.data.train.dataset import open_train
from mmeb.errors import MmebError
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.loading import load_model
from mmeb.tasks import TASKS

CHECKPOINT = Path(mmeb.__file__).parent / "demo" / "checkpoints" / "demo"

_CPU = torch.device("cpu")
_IMAGE = Image.effect_noise((40, 60), 80).convert("RGB")


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel.new(DemoConfig(), seed=0, device=_CPU)


def _embed(model: EmbeddingModel, *items: Item) -> torch.Tensor:
    with torch.inference_mode():
        return model.embed(model.preprocess(items))


def _load(folder: Path, options: Mapping[str, str] | None = None) -> DemoModel:
    checkpoint = Checkpoint("x", str(folder), folder)
    return DemoModel.load(checkpoint, device=_CPU, dtype=torch.float32, options=options or {})


@pytest.mark.parametrize("image", [None, _IMAGE], ids=["text", "image+text"])
def test_an_embedding_depends_on_its_item_alone(model: DemoModel, image: Image.Image | None) -> None:
    items = [Item(prompt=f"{'a word ' * length} and so on", image=image) for length in (1, 4, 60, 11, 30)]
    together = _embed(model, *items)
    alone = torch.cat([_embed(model, item) for item in items])
    assert torch.allclose(together, alone, atol=1e-6, rtol=0)
    assert torch.allclose(together.norm(dim=-1), torch.ones(5), atol=1e-6)


def test_an_image_without_a_text_does_not_depend_on_the_texts_beside_it(model: DemoModel) -> None:
    bare, asked = Item(image=_IMAGE), Item(prompt="What color is the fish on the left?", image=_IMAGE)
    assert torch.allclose(_embed(model, bare, asked)[:1], _embed(model, bare), atol=1e-6, rtol=0)


def test_image_question_and_instruction_all_count(model: DemoModel) -> None:
    prompt = "<|image_1|>\nRepresent the given image with the following question: What is this?\n"
    first = _embed(model, Item(prompt=prompt, image=_IMAGE))
    for other in (
        Item(prompt=prompt, image=_IMAGE.rotate(90)),
        Item(prompt=prompt.replace("this", "on the left"), image=_IMAGE),
        Item(prompt=prompt.replace("question", "caption"), image=_IMAGE),
    ):
        assert (_embed(model, other) - first).abs().max() > 1e-3


def test_the_order_of_words_counts(model: DemoModel) -> None:
    first, second = _embed(model, Item(prompt="a red hat and a blue car"), Item(prompt="a blue hat and a red car"))
    assert (first - second).abs().max() > 1e-3


def test_a_placeholder_is_no_word(model: DemoModel) -> None:
    with_placeholder = Item(prompt="<|image_1|>\nFind a Wikipedia image that answers this question: why?\n")
    without = Item(prompt="Find a Wikipedia image that answers this question: why?\n")
    assert torch.equal(_embed(model, with_placeholder), _embed(model, without))


def test_a_text_that_is_too_long_is_cut_and_counted(model: DemoModel) -> None:
    batch = model.preprocess([Item(prompt="word " * 97), Item(prompt="word " * 96)])
    assert batch.truncated == 1
    assert batch.inputs["ids"].shape[1] == 96
    assert model.cost(Item(prompt="word " * 500)) == 97


def test_a_saved_model_is_loaded_as_it_was_but_for_half_precision(model: DemoModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    item = Item(prompt="a fish", image=_IMAGE)
    assert torch.allclose(_embed(_load(tmp_path), item), _embed(model, item), atol=2e-3, rtol=0)


def test_a_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (DemoModel.new(DemoConfig(), seed=seed, device=_CPU) for seed in (1, 1, 2))
    assert torch.rand(1) == expected
    item = Item(prompt="a fish")
    assert torch.equal(_embed(first, item), _embed(second, item))
    assert not torch.allclose(_embed(first, item), _embed(other, item), atol=1e-2)


def test_preprocessing_can_be_sent_to_a_worker(model: DemoModel) -> None:
    copy = pickle.loads(pickle.dumps(model))
    item = Item(prompt="a fish")
    assert torch.equal(copy.preprocess([item]).inputs["ids"], model.preprocess([item]).inputs["ids"])


def test_a_checkpoint_of_another_kind_is_refused(model: DemoModel, tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"no config\.json of the adapter demo"):
        _load(tmp_path)
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(MmebError, match="its model_type is clip"):
        _load(tmp_path)


def test_weights_that_do_not_fit_are_refused(model: DemoModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "layers": 4}))
    with pytest.raises(MmebError, match="do not fit its configuration: the model lacks 12 weights"):
        _load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(MmebError, match="can't be read"):
        _load(tmp_path)


def test_it_has_no_options(model: DemoModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(MmebError, match="there is no option 'fusion'"):
        _load(tmp_path, {"fusion": "sum"})


def _chance() -> dict[str, float]:
    """By task, the mean over rows of 1 / number of distinct candidates."""
    source = open_source("demo")
    ids = {task.name: load_eval(task, source).candidate_ids for task in TASKS}
    return {name: float(np.mean([1 / len(set(row[row >= 0])) for row in rows])) for name, rows in ids.items()}


def _times_chance(model: EmbeddingModel | str, folder: Path) -> dict[str, float]:
    """How many times chance hit@1 is, over all tasks and in each meta-task."""
    result = mmeb.evaluate(model, data="demo", output=folder)
    chance = _chance()
    groups = {"overall": [task.name for task in TASKS]}
    for task in TASKS:
        groups.setdefault(task.meta_task, []).append(task.name)
    return {
        group: float(
            np.mean([result.tasks[name].metrics["hit@1"] for name in names]) / np.mean([chance[name] for name in names])
        )
        for group, names in groups.items()
    }


def test_the_bundled_checkpoint_is_far_above_chance_everywhere(tmp_path: Path) -> None:
    times = _times_chance("demo", tmp_path)
    assert times.pop("overall") >= 5
    assert min(times.values()) >= 3


def test_random_weights_are_not(tmp_path: Path) -> None:
    times = _times_chance(DemoModel.new(DemoConfig(), seed=0, device=_CPU), tmp_path)
    assert times["overall"] < 2.5
    assert times["classification"] < 2
    assert times["vqa"] < 2


def test_the_bundled_checkpoint_is_small_and_says_how_it_was_made() -> None:
    assert load_model("demo").dim == 128
    assert (CHECKPOINT / "model.safetensors").stat().st_size < 4_000_000
    manifest = json.loads((CHECKPOINT / "mmeb.json").read_text())
    assert manifest["command"].startswith("mmeb train --adapter demo --model runs/objects --data demo")
    documented = (ROOT / "docs" / "training.md").read_text()
    assert manifest["command"] in documented


def test_the_bundled_checkpoint_was_trained_on_the_rows_that_the_demo_has_today() -> None:
    manifest = json.loads((CHECKPOINT / "mmeb.json").read_text())
    recorded = {each["subset"]: each["fingerprint"] for each in manifest["data"]}
    assert recorded == {subset.name: subset.fingerprint for subset in open_train("demo")}
