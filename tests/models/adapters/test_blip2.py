"""BLIP-2 against the library's own numbers, and its two ways to one vector for an image."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.paths import GOLDEN
from torch import Tensor
from torch.nn.functional import normalize

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.verify import verify_model
from mmeb.models.adapters.blip2 import Blip2Model
from mmeb.models.checkpoints.checkpoint import Checkpoint

NUMBERS = np.load(GOLDEN / "clip_blip" / "blip2.npz")
INPUTS = json.loads((GOLDEN / "clip_blip" / "blip2.json").read_text())
IMAGES = [Item(image=GOLDEN / "data" / "images" / name) for name in INPUTS["images"]]
TEXTS = [Item(text=text) for text in INPUTS["texts"]]
PAIRS = [Item(text=text.text, image=image.image) for text, image in zip(TEXTS, IMAGES, strict=False)]


def load(folder: str | Path = "blip2", dtype: torch.dtype = torch.float32, **options: str) -> Blip2Model:
    checkpoint = Checkpoint("blip2", str(folder), GOLDEN / "ckpt" / folder)
    return Blip2Model.load(checkpoint, device=torch.device("cpu"), dtype=dtype, options=options)


def embed(model: Blip2Model, items: list[Item]) -> NDArray[Any]:
    with torch.inference_mode():
        return model.embed(model.preprocess(items)).numpy()


def library_states(model: Blip2Model) -> tuple[Tensor, Tensor]:
    """What the library's own forward pass hands to the projections: of images (n, queries, width), of texts."""
    seen: list[Tensor] = []
    hook = model.module.qformer.register_forward_hook(lambda *call: seen.append(call[2].last_hidden_state))
    pixels = model.preprocess(IMAGES[:3]).inputs["pixel_values"]
    with torch.inference_mode():
        model.module(
            pixel_values=pixels,
            input_ids=torch.from_numpy(NUMBERS["input_ids"]),
            attention_mask=torch.from_numpy(NUMBERS["attention_mask"]),
        )
    hook.remove()
    return seen[0], seen[1]


def unit(vectors: Tensor | NDArray[Any]) -> NDArray[Any]:
    return normalize(torch.as_tensor(vectors), dim=-1).numpy()


def test_every_query_token_equals_the_librarys() -> None:
    model = load()
    with torch.inference_mode():
        queries = model.query_features(model.preprocess(IMAGES).inputs)

    np.testing.assert_allclose(unit(queries), NUMBERS["image_embeds"], atol=1e-5)


def test_texts_of_all_lengths_in_one_batch_equal_the_librarys() -> None:
    np.testing.assert_allclose(embed(load(), TEXTS), NUMBERS["text_embeds"], atol=1e-5)


def test_the_best_query_token_scores_as_the_models_authors_score() -> None:
    model = load()
    with torch.inference_mode():
        queries = unit(model.query_features(model.preprocess(IMAGES[:3]).inputs))

    best = (queries @ embed(model, TEXTS).T).max(axis=1)

    np.testing.assert_allclose(best.ravel(), NUMBERS["itc"], atol=1e-5)


def test_the_mean_ranks_texts_by_the_mean_similarity_of_the_query_tokens() -> None:
    model = load()
    similarity = (NUMBERS["image_embeds"] @ embed(model, TEXTS).T).mean(axis=1)
    length = np.linalg.norm(NUMBERS["image_embeds"].mean(axis=1), axis=-1, keepdims=True)

    np.testing.assert_allclose(embed(model, IMAGES) @ embed(model, TEXTS).T, similarity / length, atol=1e-5)


def test_pooling_first_takes_the_first_query_token() -> None:
    model = load(pooling="first")

    np.testing.assert_allclose(embed(model, IMAGES), NUMBERS["image_embeds"][:, 0], atol=1e-5)
    assert model.provenance["options"]["pooling"] == "first"


def test_fusion_sum_in_hidden_space_adds_first_states_as_the_reference_does() -> None:
    model = load(pooling="first", space="hidden", fusion="sum")
    image, text = library_states(model)

    vectors = embed(model, PAIRS)

    assert vectors.shape == (3, 48)
    assert model.dim == 48
    np.testing.assert_allclose(vectors, unit(image[:, 0] + text[:, 0]), atol=1e-5)


def test_image_and_text_are_fused_by_the_sum_of_their_unit_vectors() -> None:
    model = load(pooling="first")

    fused = unit(NUMBERS["image_embeds"][:3, 0] + NUMBERS["text_embeds"])
    np.testing.assert_allclose(embed(model, PAIRS), fused, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_an_embedding_does_not_depend_on_its_batch(pooling: str) -> None:
    model = load(pooling=pooling)
    for items in (IMAGES, TEXTS, PAIRS):
        alone = np.concatenate([embed(model, [item]) for item in items])
        np.testing.assert_allclose(embed(model, items), alone, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_passes_verification(dtype: torch.dtype) -> None:
    model = load(dtype=dtype)

    assert model.provenance["dtype"] == str(dtype).removeprefix("torch.")
    verdict = verify_model(model)
    assert verdict.passed, verdict.table()


def test_the_published_layout_loads_too(tmp_path: Path) -> None:
    """An older name in the configuration, the tokenizer as a vocabulary alone."""
    folder = Path(shutil.copytree(GOLDEN / "ckpt" / "blip2", tmp_path / "blip2"))
    (folder / "tokenizer.json").unlink()
    (folder / "added_tokens.json").write_text('{"[DEC]": 602}')
    config = json.loads((folder / "config.json").read_text())
    config["qformer_config"]["qformer_text_input"] = config["qformer_config"].pop("use_qformer_text_input")
    del config["text_config"]
    (folder / "config.json").write_text(json.dumps(config))

    np.testing.assert_allclose(embed(load(folder), TEXTS), NUMBERS["text_embeds"], atol=1e-5)


def test_the_older_blip_is_refused() -> None:
    with pytest.raises(MmebError, match="blip model, not blip-2"):
        load("blip")


def test_a_pooling_that_makes_no_single_vector_is_refused() -> None:
    with pytest.raises(MmebError, match="pooling must be 'mean' or 'first', not 'max'"):
        load(pooling="max")
