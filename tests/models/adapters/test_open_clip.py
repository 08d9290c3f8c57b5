"""OpenCLIP against the library's own forward pass."""

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from support.paths import GOLDEN

from mmeb.data.images.image import FileImage
from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.adapters.open_clip import OpenClipModel
from mmeb.models.loading import load_model

IMAGES = sorted((GOLDEN / "data" / "images").glob("set0/*"))[:6]
TEXTS = ["A red, Dog!", "", "where is the old house " * 30]


def load(folder: Path) -> OpenClipModel:
    model = load_model(str(folder), device="cpu")
    assert isinstance(model, OpenClipModel)
    return model


def embed(model: OpenClipModel, items: list[Item]) -> NDArray[np.float32]:
    with torch.inference_mode():
        return model.embed(model.preprocess(items)).numpy()


def test_images_and_texts_equal_the_librarys(open_clip_folder: Path) -> None:
    library, transform = open_clip.create_model_from_pretrained(f"local-dir:{open_clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{open_clip_folder}")
    with torch.inference_mode():
        pixels = torch.stack([transform(FileImage(path).rgb()) for path in IMAGES])
        images, texts = library.encode_image(pixels, normalize=True), library.encode_text(tokenizer(TEXTS), True)

    model = load(open_clip_folder)

    np.testing.assert_allclose(embed(model, [Item(image=path) for path in IMAGES]), images, atol=1e-6)
    np.testing.assert_allclose(embed(model, [Item(text=text) for text in TEXTS]), texts, atol=1e-6)


def test_a_pickled_checkpoint_gives_the_same_vectors(open_clip_folder: Path, tmp_path: Path) -> None:
    shutil.copy(open_clip_folder / "open_clip_config.json", tmp_path)
    torch.save(load_file(open_clip_folder / "open_clip_model.safetensors"), tmp_path / "open_clip_pytorch_model.bin")
    items = [Item(text="a dog", image=IMAGES[0])]

    np.testing.assert_allclose(embed(load(tmp_path), items), embed(load(open_clip_folder), items), atol=1e-6)


def test_a_vector_depends_on_its_item_alone(open_clip_folder: Path) -> None:
    items = [Item(image=path) for path in IMAGES] + [Item(text=text) for text in TEXTS]
    items += [Item(text=text, image=path) for text, path in zip(TEXTS, IMAGES, strict=False)]
    model = load(open_clip_folder)
    alone = np.concatenate([embed(model, [item]) for item in items])

    np.testing.assert_allclose(embed(model, items), alone, atol=1e-6)
    np.testing.assert_allclose(embed(model, items[::-1])[::-1], alone, atol=1e-6)


@pytest.mark.parametrize("text", ["a red dog " * 10_000, "x" * 100_000, " " * 50_000 + "dog " * 100])
def test_long_text_is_cut_as_the_library_does_and_counted(open_clip_folder: Path, text: str) -> None:
    model = load(open_clip_folder)

    batch = model.preprocess([Item(text=text), Item(text="dog")])

    assert batch.truncated == 1
    assert batch.tokens == 77 + 3
    np.testing.assert_array_equal(batch.inputs["input_ids"][0], model.tokenizer([text[-20_000:].strip()])[0])


def test_position_embeddings_of_another_size_are_refused_not_resized(open_clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(open_clip_folder, folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["vision_cfg"]["image_size"] = 64
    (folder / "open_clip_config.json").write_text(json.dumps(config))

    with pytest.raises(MmebError, match=r"another shape \(visual.positional_embedding is \(17, 32\), not \(65, 32\)\)"):
        load(folder)


def test_a_folder_of_another_library_is_refused_by_name() -> None:
    with pytest.raises(MmebError, match=r"no weights in open_clip_model.safetensors .* \(it has model.safetensors\)"):
        load_model(str(GOLDEN / "ckpt" / "clip"), adapter="open_clip", device="cpu")
