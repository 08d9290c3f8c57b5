"""E5-V, against the prompts, token ids and embeddings of its own templates."""

import json

import numpy as np
import pytest
import torch
from support.paths import GOLDEN

from mmeb.data.item import Item
from mmeb.models.adapters.e5_v import E5VModel
from mmeb.models.checkpoints.checkpoint import Checkpoint

EXPECTED = json.loads((GOLDEN / "clip_blip/e5v.json").read_text())
CHECKPOINT = Checkpoint("e5-v", "e5-v", GOLDEN / "ckpt/e5v")


def load(**options: str) -> E5VModel:
    return E5VModel.load(CHECKPOINT, device=torch.device("cpu"), dtype=torch.float32, options=options)


@pytest.fixture(scope="module")
def model() -> E5VModel:
    return load()


@pytest.mark.parametrize("expected", EXPECTED["items"], ids=[expected["tag"] for expected in EXPECTED["items"]])
def test_prompt_tokens_and_embedding_are_the_reference_ones(model: E5VModel, expected: dict[str, str]) -> None:
    number, golden = int(expected["tag"][-1]), np.load(GOLDEN / "clip_blip/e5v.npz")
    image = None if expected["kind"] == "text" else GOLDEN / "data/images" / EXPECTED["images"][number]
    text = "" if expected["kind"] == "image" else EXPECTED["texts"][number]
    item = Item("", "an instruction", text, image)
    assert model.rendered(item).replace("<|image_1|>", "<image>") == expected["prompt"]
    batch = model.preprocess([item])
    assert batch.inputs["input_ids"][0].tolist() == golden[f"{expected['tag']}/ids"].tolist()
    with torch.inference_mode():
        np.testing.assert_allclose(model.embed(batch)[0].numpy(), golden[f"{expected['tag']}/emb"], rtol=0, atol=1e-5)


def test_instruction_goes_in_front_where_asked_for() -> None:
    model = load(text="instruction")
    image = GOLDEN / "data/images/set0/im000.png"
    rendered = model.rendered(Item("", "Identify the scene", "at night", image))
    assert "<|image_1|>\nIdentify the scene at night\nSummary above image and text in one word: " in rendered
    assert "Identify the scene\nSummary above image and text" in model.rendered(
        Item("", "Identify the scene", "", image)
    )


def test_placeholder_without_image_is_dropped(model: E5VModel) -> None:
    item = Item("<|image_1|>\nFind a news image that matches: A dog.\n", "Find a news image that matches:", "A dog.")
    assert "A dog.\nSummary above sentence in one word: " in model.rendered(item)
    assert "image_1" not in model.rendered(item)


def test_braces_in_a_text_stay_as_they_are(model: E5VModel) -> None:
    assert "{x} {0}\nSummary above sentence" in model.rendered(Item("{x} {0}"))


def test_rows_in_one_batch_equal_the_rows_alone(model: E5VModel) -> None:
    image = GOLDEN / "data/images/set1/im004.png"
    items = [Item("no"), Item(image=image), Item("", text=EXPECTED["texts"][2], image=image), Item("")]
    with torch.inference_mode():
        together = model.embed(model.preprocess(items))
        alone = torch.cat([model.embed(model.preprocess([item])) for item in items])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
