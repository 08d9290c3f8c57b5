"""What is phi35v's own beside what all VLM2Vec adapters do."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import GOLDEN

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model

IMAGES = GOLDEN / "data/images"
OFFICIAL = GOLDEN / "ckpt/phi3_v"
PROMPT = "<|image_1|>\nRepresent the given image.\n"


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    return load_model(str(OFFICIAL), adapter="phi35v", device="cpu", dtype="float32")


def embed(model: EmbeddingModel, items: list[Item]) -> torch.Tensor:
    with torch.inference_mode():
        return model.embed(model.preprocess(items))


def test_architecture_tells_the_adapter(model: EmbeddingModel) -> None:
    assert load_model(str(OFFICIAL), device="cpu", dtype="float32").adapter == model.adapter == "phi35v"


def test_items_of_every_modality_share_a_batch_and_equal_the_reference(model: EmbeddingModel) -> None:
    golden = np.load(GOLDEN / "mixed/phi3_v.npz")
    items = [Item("no"), Item(PROMPT, image=IMAGES / "set0/im000.png"), Item("")]
    vectors = embed(model, items).numpy()
    for vector, name in zip(vectors, ("t_short", "i_a", "t_empty"), strict=True):
        np.testing.assert_allclose(vector, golden[f"single.{name}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("merge", ["merge", "keep"])
def test_adapter_over_a_base_equals_the_reference(merge: str) -> None:
    options = {"base": str(OFFICIAL), "lora": merge}
    model = load_model(
        str(GOLDEN / "ckpt/phi3_v_dora"), adapter="phi35v", device="cpu", dtype="float32", options=options
    )
    golden = np.load(GOLDEN / "phi3_v_dora.npz")
    rows = json.loads((GOLDEN / "phi3_v_dora.json").read_text())["rows"]
    vectors = embed(model, [Item(text, image=IMAGES / path if path else None) for text, path in rows]).numpy()
    name = {"merge": "merged", "keep": "unmerged"}[merge]
    for number, vector in enumerate(vectors):
        np.testing.assert_allclose(vector, golden[f"{name}/{number}"], rtol=0, atol=1e-5)
        assert np.abs(vector - golden[f"base/{number}"]).max() > 1e-3


def test_cost_is_the_number_of_tokens(model: EmbeddingModel) -> None:
    item = Item(PROMPT, image=IMAGES / "set0/im000.png")
    assert model.cost(item) == model.preprocess([item]).tokens == 768


def test_long_rows_take_batches_of_their_own(model: EmbeddingModel) -> None:
    image = Image.new("RGB", (64, 48))
    short, long = Item(PROMPT, image=image), Item(PROMPT + "A red dog runs. " * 2000, image=image)
    assert model.cost(long) > 4096
    assert model.group(short) != model.group(long)


def test_num_crops_is_an_option_that_affects_scores(model: EmbeddingModel) -> None:
    finer = load_model(str(OFFICIAL), adapter="phi35v", device="cpu", dtype="float32", options={"num_crops": "16"})
    item = Item(PROMPT, image=IMAGES / "set0/im000.png")
    assert finer.cost(item) > model.cost(item)
    assert finer.provenance != model.provenance
    assert not torch.allclose(embed(finer, [item]), embed(model, [item]), atol=1e-3)


@pytest.mark.parametrize("num_crops", ["0", "17", "four"])
def test_impossible_num_crops_is_refused(num_crops: str) -> None:
    with pytest.raises(MmebError, match="num_crops"):
        load_model(str(OFFICIAL), adapter="phi35v", device="cpu", options={"num_crops": num_crops})
