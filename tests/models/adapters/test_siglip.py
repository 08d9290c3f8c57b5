"""SigLIP and SigLIP 2 against the library's own forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.paths import GOLDEN
from torch.nn.functional import normalize
from transformers import AutoModel, AutoProcessor, Siglip2ImageProcessorPil, SiglipImageProcessorPil

from mmeb.data.images.image import FileImage
from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.adapters.siglip import SiglipModel
from mmeb.models.loading import load_model

IMAGES = sorted((GOLDEN / "data" / "images").glob("set0/*"))[:6]
TEXTS = ["A red, Dog!", "", "where is the old house " * 30]


def load(folder: Path) -> SiglipModel:
    model = load_model(str(folder), device="cpu")
    assert isinstance(model, SiglipModel)
    return model


def embed(model: SiglipModel, items: list[Item]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model.embed(model.preprocess(items)).numpy()


def test_texts_equal_the_librarys_with_its_padding_to_the_context_length(siglip_folder: Path) -> None:
    tokenizer = AutoProcessor.from_pretrained(siglip_folder).tokenizer
    inputs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        wanted = normalize(AutoModel.from_pretrained(siglip_folder).get_text_features(**inputs).pooler_output)

    model = load(siglip_folder)

    np.testing.assert_array_equal(model.tokenize(TEXTS).ids, inputs.input_ids)
    np.testing.assert_allclose(embed(model, [Item(text=text) for text in TEXTS]), wanted, atol=1e-6)


def test_images_equal_the_librarys(siglip_folder: Path) -> None:
    processor = SiglipImageProcessorPil.from_pretrained(siglip_folder)
    inputs = processor(images=[FileImage(path).rgb() for path in IMAGES], return_tensors="pt")
    with torch.inference_mode():
        wanted = normalize(AutoModel.from_pretrained(siglip_folder).get_image_features(**inputs).pooler_output)

    np.testing.assert_allclose(embed(load(siglip_folder), [Item(image=path) for path in IMAGES]), wanted, atol=1e-6)


def test_images_of_variable_resolution_equal_the_librarys(naflex_folder: Path) -> None:
    processor = Siglip2ImageProcessorPil.from_pretrained(naflex_folder)
    inputs = processor(images=[FileImage(path).rgb() for path in IMAGES], return_tensors="pt")
    with torch.inference_mode():
        wanted = normalize(AutoModel.from_pretrained(naflex_folder).get_image_features(**inputs).pooler_output)

    np.testing.assert_allclose(embed(load(naflex_folder), [Item(image=path) for path in IMAGES]), wanted, atol=1e-6)


def test_siglip_2_reads_lower_case_though_its_tokenizer_tells_the_two_apart(siglip2_folder: Path) -> None:
    model = load(siglip2_folder)
    assert model.tokenizer("A Red Dog").input_ids != model.tokenizer("a red dog").input_ids

    upper, lower = embed(model, [Item(text="A Red Dog"), Item(text="a red dog")])

    np.testing.assert_array_equal(upper, lower)


def test_a_text_ends_once_and_is_padded_to_the_context_length(siglip2_folder: Path) -> None:
    model = load(siglip2_folder)

    ids = model.tokenize(["a red dog"]).ids[0].tolist()

    assert len(ids) == 64
    end = ids.index(model.tokenizer.eos_token_id)
    assert set(ids[end + 1 :]) == {model.tokenizer.pad_token_id}
    assert model.tokenizer.bos_token_id not in ids


def test_long_text_is_cut_before_its_end_token_and_counted(siglip_folder: Path) -> None:
    model = load(siglip_folder)

    batch = model.preprocess([Item(text="a red dog " * 10_000), Item(text="dog")])

    assert batch.truncated == 1
    assert batch.inputs["input_ids"][0, -1] == model.tokenizer.eos_token_id


def test_a_vector_depends_on_its_item_alone(siglip_folder: Path, naflex_folder: Path) -> None:
    items = [Item(image=path) for path in IMAGES] + [Item(text=text) for text in TEXTS]
    items += [Item(text=text, image=path) for text, path in zip(TEXTS, IMAGES, strict=False)]
    for folder in (siglip_folder, naflex_folder):
        model = load(folder)
        alone = np.concatenate([embed(model, [item]) for item in items])

        np.testing.assert_allclose(embed(model, items), alone, atol=1e-6)
        np.testing.assert_allclose(embed(model, items[::-1])[::-1], alone, atol=1e-6)


def test_another_architecture_is_refused_by_name() -> None:
    clip = GOLDEN / "ckpt" / "clip"

    with pytest.raises(MmebError, match="is a clip model, not siglip or siglip2"):
        load_model(str(clip), adapter="siglip", device="cpu")
