"""BLIP against the library's own numbers, and what it does with each kind of item."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN
from torch import Tensor
from torch.nn.functional import normalize

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.verify import verify_model
from mmeb.models.adapters.blip import BlipModel
from mmeb.models.checkpoints.checkpoint import Checkpoint

FOLDER = GOLDEN / "ckpt" / "blip"
NUMBERS = np.load(GOLDEN / "clip_blip" / "blip.npz")
INPUTS = json.loads((GOLDEN / "clip_blip" / "blip.json").read_text())
IMAGES = [GOLDEN / "data" / "images" / name for name in INPUTS["images"]]
TEXTS = INPUTS["texts"]


def load(folder: Path = FOLDER, dtype: torch.dtype = torch.float32, **options: str) -> BlipModel:
    return BlipModel.load(
        Checkpoint("blip", str(folder), folder), device=torch.device("cpu"), dtype=dtype, options=options
    )


def embed(model: BlipModel, items: list[Item]) -> NDArray[Any]:
    with torch.inference_mode():
        return model.embed(model.preprocess(items)).numpy()


def unit(vectors: Tensor | NDArray[Any]) -> NDArray[Any]:
    return normalize(torch.as_tensor(vectors), dim=-1).numpy()


def test_images_equal_the_librarys_contrastive_head() -> None:
    vectors = embed(load(), [Item(image=path) for path in IMAGES])

    np.testing.assert_allclose(vectors, NUMBERS["image_embeds"], atol=1e-5)


def test_texts_of_all_lengths_in_one_batch_equal_the_librarys() -> None:
    vectors = embed(load(), [Item(text=text) for text in TEXTS])

    np.testing.assert_allclose(vectors, NUMBERS["text_embeds"], atol=1e-5)


def test_cosines_are_the_similarities_of_the_librarys_own_forward_pass() -> None:
    images = embed(load(), [Item(image=path) for path in IMAGES[:3]])
    texts = embed(load(), [Item(text=text) for text in TEXTS])

    np.testing.assert_allclose((images @ texts.T).ravel(), NUMBERS["itc"], atol=1e-5)


def test_image_and_text_are_fused_by_the_sum_of_their_unit_vectors() -> None:
    vectors = embed(load(), [Item(text=text, image=path) for text, path in zip(TEXTS, IMAGES, strict=False)])

    fused = unit(NUMBERS["image_embeds"][:3] + NUMBERS["text_embeds"])
    np.testing.assert_allclose(vectors, fused, atol=1e-5)


def test_fusion_sum_adds_the_raw_features() -> None:
    model = load(fusion="sum")
    vectors = embed(model, [Item(text=text, image=path) for text, path in zip(TEXTS, IMAGES, strict=False)])

    np.testing.assert_allclose(vectors, unit(NUMBERS["image_raw"][:3] + NUMBERS["text_raw"]), atol=1e-5)
    assert "sum" in json.dumps(model.provenance)


def test_an_embedding_does_not_depend_on_its_batch() -> None:
    model = load()
    for items in ([Item(text=text) for text in TEXTS], [Item(image=path) for path in IMAGES]):
        alone = np.concatenate([embed(model, [item]) for item in items])
        np.testing.assert_allclose(embed(model, items), alone, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_passes_verification(dtype: torch.dtype) -> None:
    verdict = verify_model(load(dtype=dtype))

    assert verdict.passed, verdict.table()


def test_a_text_beyond_the_context_is_cut_and_counted() -> None:
    batch = load().preprocess([Item(text="word " * 1000), Item(text="short")])

    assert batch.truncated == 1
    assert batch.inputs["input_ids"].shape == (2, 512)


def test_a_placeholder_without_an_image_is_not_fed() -> None:
    model = load()
    bare = Item(prompt="<|image_1|>\nWhere is the bridge?\n")

    np.testing.assert_allclose(embed(model, [bare]), embed(model, [Item(text="Where is the bridge?")]), atol=1e-6)


def test_a_text_that_spells_out_the_padding_token_is_seen_to_its_end() -> None:
    model = load()
    items = [Item(text="a dog [PAD] near the house"), Item(text="a dog [PAD] near the car"), Item(text="dog " * 40)]

    first, second, _ = embed(model, items)

    assert np.abs(first - second).max() > 1e-4


def test_an_option_that_it_lacks_is_refused() -> None:
    with pytest.raises(MmebError, match="pooling"):
        load(pooling="first")


def test_a_checkpoint_of_another_architecture_is_refused() -> None:
    with pytest.raises(MmebError, match="clip model"):
        load(GOLDEN / "ckpt" / "clip")


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused_by_name(fault: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "blip"))
    weights = load_file(folder / "model.safetensors")
    match fault:
        case "missing":
            del weights["vision_proj.weight"]
        case "extra":
            weights["text_decoder.weight"] = torch.ones(2)
        case "shape":
            weights["vision_proj.weight"] = torch.ones(3, 64)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(MmebError, match="text_decoder" if fault == "extra" else "vision_proj"):
        load(folder)
