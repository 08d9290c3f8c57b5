"""CLIP against the library's numbers and the reference's, and its input."""

import json
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN

from mmeb.data.images.image import FileImage
from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.adapters.clip import ClipModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model

FOLDER = GOLDEN / "ckpt" / "clip"
IMAGES = GOLDEN / "data" / "images"
NUMBERS = np.load(GOLDEN / "clip_blip" / "clip.npz")
INPUTS = json.loads((GOLDEN / "clip_blip" / "clip.json").read_text())
# What the reference does: raw sums, and a mask that hides the very token that is pooled.
REFERENCE = {"fusion": "sum", "text_mask": "reference"}
SUBSETS = sorted(json.loads((GOLDEN / "eval" / "clip_raw_bs1.json").read_text())["subsets"])
Vectors = Mapping[Item, NDArray[np.float32]]
INSTRUCTION = "Represent the given image with the following question:"
PROMPT = f"<|image_1|>\n{INSTRUCTION} what is it?\n"


@cache
def load(**options: str) -> ClipModel:
    model = load_model(str(FOLDER), device="cpu", options=options)
    assert isinstance(model, ClipModel)
    return model


def embed(model: EmbeddingModel, items: list[Item]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model.embed(model.preprocess(items)).numpy()


def features(model: ClipModel, items: list[Item]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.concatenate([model.features(model.preprocess([item])).numpy() for item in items])


def reference_items(text: str, subset: str, side: str) -> list[Item]:
    keys = json.loads((GOLDEN / "eval" / f"clip_{text}_bs1.json").read_text())["subsets"][subset][f"{side}_keys"]
    return [reference_item(*key) for key in keys]


def reference_item(prompt: str, image: str) -> Item:
    return Item(prompt=prompt, image=IMAGES / image if image else None)


def reference_numbers(text: str) -> Any:
    return np.load(GOLDEN / "eval" / f"clip_{text}_bs1.npz")


def test_token_ids_equal_the_librarys_up_to_padding() -> None:
    tokenized = load().tokenize(INPUTS["texts"])

    length = tokenized.ids.shape[1]
    np.testing.assert_array_equal(tokenized.ids, NUMBERS["input_ids"][:, :length])
    assert tokenized.tokens == NUMBERS["attention_mask_hf"].sum()


def test_pixels_of_awkward_images_equal_the_librarys() -> None:
    pixels = load().pixels([FileImage(IMAGES / name).rgb() for name in INPUTS["images"]])["pixel_values"]

    np.testing.assert_allclose(pixels, NUMBERS["pixel_values"], atol=1e-5)


def test_image_and_text_features_equal_the_librarys() -> None:
    model = load(fusion="sum")

    images = features(model, [Item(image=IMAGES / name) for name in INPUTS["images"]])
    texts = features(model, [Item(text=text) for text in INPUTS["texts"]])

    np.testing.assert_allclose(images, NUMBERS["image_features"], atol=1e-5)
    np.testing.assert_allclose(texts, NUMBERS["text_features_hf_mask"], atol=1e-5)


def test_the_references_text_mask_gives_the_references_text_features() -> None:
    texts = features(load(**REFERENCE), [Item(text=text) for text in INPUTS["texts"]])

    np.testing.assert_allclose(texts, NUMBERS["text_features_upstream_mask"], atol=1e-5)


@pytest.mark.parametrize("text", ["raw", "strip"])
def test_sums_scores_and_predictions_equal_the_references(text: str) -> None:
    model, numbers = load(text=text, **REFERENCE), reference_numbers(text)
    for subset in SUBSETS:
        units = {}
        for side in ("qry", "tgt"):
            items = reference_items(text, subset, side)
            sums = features(model, items)
            np.testing.assert_allclose(sums, numbers[f"{subset}/{side}"], atol=1e-5)
            units[side] = dict(zip(items, sums / np.linalg.norm(sums, axis=1, keepdims=True), strict=True))

        scores = score_rows(subset, units["qry"], units["tgt"])

        np.testing.assert_allclose(scores, numbers[f"{subset}/scores"], atol=1e-5)
        np.testing.assert_array_equal(scores.argmax(axis=1), numbers[f"{subset}/pred"])


def score_rows(subset: str, queries: Vectors, candidates: Vectors) -> NDArray[np.float32]:
    """(n_rows, n_candidates) cosines, in the order of the data."""
    scores = []
    for row in pd.read_parquet(GOLDEN / "data" / "MMEB-eval" / subset).to_dict("records"):
        targets = zip(row["tgt_text"], row["tgt_img_path"], strict=True)
        vectors = np.stack([candidates[reference_item(*target)] for target in targets])
        scores.append(vectors @ queries[reference_item(row["qry_text"], row["qry_img_path"])])
    return np.array(scores, dtype=np.float32)


@pytest.mark.parametrize("subset", ["CIRR", "OK-VQA"])
def test_without_that_mask_nothing_but_the_texts_own_features_differs(subset: str) -> None:
    items = reference_items("raw", subset, "qry")
    texts = [Item(prompt=item.prompt) for item in items]
    ours, theirs = load(text="raw", fusion="sum"), load(text="raw", **REFERENCE)

    difference = features(ours, items) - reference_numbers("raw")[f"{subset}/qry"]

    assert np.abs(difference).max() > 0.1
    np.testing.assert_allclose(difference, features(ours, texts) - features(theirs, texts), atol=1e-5)


def test_unit_fusion_is_the_sum_of_the_two_unit_vectors() -> None:
    items = reference_items("raw", "CIRR", "qry")
    model = load(text="raw")

    images = embed(load(), [Item(image=item.image) for item in items])
    texts = embed(model, [Item(prompt=item.prompt) for item in items])

    sums = images + texts
    np.testing.assert_allclose(embed(model, items), sums / np.linalg.norm(sums, axis=1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("plain", "<|image_1|> + what is it?"),
        ("instruction", f"<|image_1|> + {INSTRUCTION} what is it?"),
        ("raw", f"<|image_1|> + {PROMPT}"),
        ("strip", f"<|image_1|> + {INSTRUCTION} what is it?"),
    ],
)
def test_the_text_option_decides_the_input(option: str, text: str) -> None:
    item = Item(PROMPT, INSTRUCTION, "what is it?", IMAGES / "set0/im000.png")

    assert load(text=option).rendered(item) == text


def test_an_instruction_alone_does_not_move_an_images_vector_by_default() -> None:
    image = IMAGES / "set0/im000.png"
    bare, instructed = embed(load(), [Item(image=image), Item(PROMPT, INSTRUCTION, "", image)])

    np.testing.assert_array_equal(bare, instructed)


def test_a_vector_depends_on_its_item_alone() -> None:
    images = [IMAGES / name for name in INPUTS["images"]]
    items = [
        *(Item(image=image) for image in images),
        *(Item(text=text) for text in INPUTS["texts"]),
        *(Item(text=text, image=image) for text, image in zip(INPUTS["texts"], images, strict=False)),
    ]
    model = load()
    alone = np.concatenate([embed(model, [item]) for item in items])

    together = embed(model, items)
    backwards = embed(model, items[::-1])[::-1]

    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(backwards, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_long_text_is_cut_with_its_end_token_and_counted() -> None:
    model = load()

    batch = model.preprocess([Item(text="word " * 20_000), Item(text="short")])

    ids = batch.inputs["input_ids"]
    assert ids.shape == (2, 77)
    assert ids[0, -1] == model.tokenizer.eos_token_id
    assert batch.truncated == 1
    assert batch.tokens + batch.padding == ids.numel()


def test_an_empty_text_is_embedded() -> None:
    vectors = embed(load(), [Item(text=""), Item(text="dog")])

    assert np.isfinite(vectors).all()
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10)])
def test_images_of_extreme_shape_are_embedded(size: tuple[int, int]) -> None:
    vectors = embed(load(), [Item(image=Image.new("RGB", size, "red"))])

    assert np.linalg.norm(vectors) == pytest.approx(1)


def test_costs_are_the_tokens_and_need_no_image() -> None:
    model = load()
    item = Item(text="a red dog", image="there is no such file.png")

    assert model.cost(item) == 17 + 5  # 4 x 4 patches and a class token; three words between two ends


def test_gradients_reach_both_towers() -> None:
    model = load()

    model.embed(model.preprocess([Item(text="dog", image=IMAGES / "set0/im000.png")])).sum().backward()  # type: ignore[no-untyped-call]

    missing = [name for name, weight in model.module.named_parameters() if weight.grad is None]
    assert missing == ["logit_scale"]


def test_what_moves_a_score_is_in_the_provenance_as_json_has_it() -> None:
    provenance = load(fusion="sum").provenance

    assert provenance["options"] == {"text": "plain", "fusion": "sum", "text_mask": "causal"}
    assert provenance["revision"].startswith("sha256:")
    assert provenance["image"]["backend"] == "pil"
    assert json.loads(json.dumps(provenance)) == provenance


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "mean"}, "The adapter clip: fusion must be 'unit' or 'sum', not 'mean'."),
        ({"fuse": "sum"}, "The adapter clip: there is no option 'fuse': did you mean fusion?"),
    ],
)
def test_an_unknown_option_or_value_names_the_choices(options: dict[str, str], message: str) -> None:
    with pytest.raises(MmebError, match=re.escape(message)):
        load_model(str(FOLDER), device="cpu", options=options)


def copy(folder: Path) -> Path:
    target = folder / "clip"
    shutil.copytree(FOLDER, target, copy_function=shutil.copyfile)
    return target


def change_weights(folder: Path, change: str) -> None:
    path = folder / "model.safetensors"
    state = load_file(path)
    match change:
        case "missing":
            del state["visual_projection.weight"]
        case "extra":
            state["adapter.weight"] = torch.zeros(2)
        case "shape":
            state["visual_projection.weight"] = torch.zeros(16, 64)
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"the model lacks 1 weights \(visual_projection.weight\)"),
        ("extra", r"it has no place for 1 \(adapter.weight\)"),
        ("shape", r"1 are of another shape \(visual_projection.weight is \(16, 64\), not \(32, 64\)\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, change: str, message: str) -> None:
    folder = copy(tmp_path)
    change_weights(folder, change)

    with pytest.raises(MmebError, match=message):
        load_model(str(folder), device="cpu")


def test_position_buffers_of_older_versions_are_no_error(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    item = Item(text="a red dog")
    vectors = embed(load_model(str(folder), device="cpu"), [item])
    np.testing.assert_allclose(vectors, embed(load(), [item]), atol=1e-6)


def test_another_architecture_is_refused_by_both_names() -> None:
    with pytest.raises(MmebError, match="is a blip model, not clip"):
        load_model(str(GOLDEN / "ckpt" / "blip"), adapter="clip", device="cpu")
