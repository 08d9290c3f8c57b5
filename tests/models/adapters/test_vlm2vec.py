"""VLM2Vec on its backbones, against the reference implementation's embeddings and predictions."""

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.paths import GOLDEN

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.adapters.decoder_embedder import DecoderEmbedder
from mmeb.models.adapters.vlm2vec import LlavaNextModel, Phi35VModel, Qwen2VLModel, Qwen25VLOptions
from mmeb.models.checkpoints.checkpoint import Checkpoint

IMAGES = GOLDEN / "data/images"
CLASSES: dict[str, type[DecoderEmbedder]] = {
    "qwen2_vl": Qwen2VLModel,
    "llava_next": LlavaNextModel,
    "phi3_v": Phi35VModel,
}
TASKS = sorted(path.name for path in (GOLDEN / "data/MMEB-eval").iterdir() if path.is_dir())
SENTENCE = "A red dog runs near the old house in the park. "

Row = tuple[str, str]  # prompt and image path, as in the reference's files
Vectors = NDArray[np.float32]


def load(name: str, **options: str) -> DecoderEmbedder:
    checkpoint = Checkpoint("tiny", "tiny", GOLDEN / "ckpt" / name)
    return CLASSES[name].load(checkpoint, device=torch.device("cpu"), dtype=torch.float32, options=options)


@cache
def tiny(name: str, inputs: str) -> DecoderEmbedder:
    """A tiny model, by what the reference calls its inputs: the number of crops, or the resolution of images."""
    return load(name, num_crops=inputs[1:]) if name == "phi3_v" else load(name, image_resolution=inputs)


@pytest.fixture
def qwen() -> DecoderEmbedder:
    return tiny("qwen2_vl", "none")


@pytest.fixture
def llava() -> DecoderEmbedder:
    return tiny("llava_next", "low")


def item(row: Row) -> Item:
    prompt, path = row
    return Item(prompt, image=IMAGES / path if path else None)


def embed(model: DecoderEmbedder, items: list[Item], batch_size: int = 8) -> Vectors:
    batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
    with torch.inference_mode():
        return np.concatenate([model.embed(model.preprocess(batch)).numpy() for batch in batches])


class Reference:
    """The reference's embeddings and predictions of the small suite, each row encoded by itself."""

    def __init__(self, name: str, inputs: str) -> None:
        path = GOLDEN / f"eval/{name}_{inputs}_bs1"
        self.keys = json.loads(path.with_suffix(".json").read_text())["subsets"]
        self.arrays = np.load(path.with_suffix(".npz"))

    def rows(self, task: str, side: str) -> list[Row]:
        return [(prompt, path) for prompt, path in self.keys[task][f"{side}_keys"]]


@pytest.mark.parametrize(
    ("name", "inputs", "task"),
    [
        *(("phi3_v", "c4", task) for task in TASKS),
        ("phi3_v", "c16", "ImageNet-1K"),
        *(("qwen2_vl", "none", task) for task in TASKS),
        ("llava_next", "low", "ImageNet-1K"),
        ("llava_next", "low", "TextOnly"),
    ],
)
def test_every_prediction_is_the_reference_one(name: str, inputs: str, task: str) -> None:
    """Embeddings of all queries and candidates to 1e-5, and the same candidate predicted in every row."""
    model, reference = tiny(name, inputs), Reference(name, inputs)
    vectors: dict[str, dict[Row, Vectors]] = {}
    for side in ("qry", "tgt"):
        rows = reference.rows(task, side)
        found = embed(model, [item(row) for row in rows])
        np.testing.assert_allclose(found, reference.arrays[f"{task}/{side}"], rtol=0, atol=1e-5)
        vectors[side] = dict(zip(rows, found, strict=True))
    predicted = []
    for row in pd.read_parquet(GOLDEN / "data/MMEB-eval" / task).to_dict("records"):
        candidates = np.stack([vectors["tgt"][key] for key in zip(row["tgt_text"], row["tgt_img_path"], strict=True)])
        predicted.append(int(np.argmax(candidates @ vectors["qry"][row["qry_text"], row["qry_img_path"]])))
    assert predicted == reference.arrays[f"{task}/pred"].tolist()


@pytest.mark.parametrize(
    ("name", "inputs", "every"),
    [
        ("phi3_v", "c16", 8),
        ("qwen2_vl", "low", 2),
        ("qwen2_vl", "mid", 25),
        ("qwen2_vl", "high", 20),
        ("llava_next", "low", 20),
        ("llava_next", "mid", 25),
        ("llava_next", "high", 20),
        ("llava_next", "none", 12),
    ],
)
def test_embeddings_at_every_resolution_are_the_reference_ones(name: str, inputs: str, every: int) -> None:
    """Every n-th row of each task that the reference was run on."""
    model, reference = tiny(name, inputs), Reference(name, inputs)
    for task in reference.keys:
        for side in ("qry", "tgt"):
            found = embed(model, [item(row) for row in reference.rows(task, side)[::every]])
            np.testing.assert_allclose(found, reference.arrays[f"{task}/{side}"][::every], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "phi3_v"])
def test_placeholder_without_image_is_kept_as_the_reference_keeps_it(name: str) -> None:
    model = load(name)
    texts = json.loads((GOLDEN / "tag_without_image.json").read_text())["texts"]
    golden = np.load(GOLDEN / "tag_without_image.npz")
    for number, text in enumerate(texts):
        assert model.preprocess([Item(text)]).inputs["input_ids"][0].tolist() == golden[f"{name}/ids/{number}"].tolist()
    found = embed(model, [Item(text) for text in texts])
    np.testing.assert_allclose(found, golden[f"{name}/embeddings"], rtol=0, atol=1e-5)


def test_placeholder_without_image_is_dropped_where_the_model_never_saw_one(qwen: DecoderEmbedder) -> None:
    dropping = load("qwen2_vl", bare_placeholder="drop")
    query = Item("<|image_1|>\nFind a news image that matches the provided caption: A dog.\n")
    assert dropping.rendered(query) == "Find a news image that matches the provided caption: A dog.\n"
    assert qwen.rendered(query) == query.prompt
    with_image = Item("<|image_1|>\nWhat is it?\n", image=IMAGES / "set0/im000.png")
    assert dropping.rendered(with_image) == with_image.prompt


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next"])
def test_image_row_behind_a_text_row_keeps_its_own_image(name: str) -> None:
    """The reference gives such a row of LLaVA-NeXT the dummy image of the text row."""
    reference, model = Reference(name, "low"), tiny(name, "low")
    texts, images = reference.rows("ImageNet-1K", "tgt")[:2], reference.rows("ImageNet-1K", "qry")[:2]
    mixed = embed(model, [item(row) for row in (texts[0], images[0], ("<|image_1|>\nbare", ""), images[1], texts[1])])
    expected = reference.arrays["ImageNet-1K/qry"][:2]
    np.testing.assert_allclose(mixed[[1, 3]], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(mixed[[0, 4]], reference.arrays["ImageNet-1K/tgt"][:2], rtol=0, atol=1e-5)


def assert_independent(model: DecoderEmbedder, items: list[Item]) -> None:
    alone = embed(model, items, batch_size=1)
    for batch_size in (4, 32):
        np.testing.assert_allclose(embed(model, items, batch_size), alone, rtol=0, atol=1e-6)
        np.testing.assert_allclose(embed(model, items[::-1], batch_size)[::-1], alone, rtol=0, atol=1e-6)


def test_embedding_of_qwen2_vl_depends_on_the_item_alone(qwen: DecoderEmbedder) -> None:
    reference = Reference("qwen2_vl", "none")
    assert_independent(qwen, [item(row) for task in TASKS for row in reference.rows(task, "tgt")[:4]])


def test_embedding_of_llava_next_depends_on_the_item_alone(llava: DecoderEmbedder) -> None:
    reference = Reference("llava_next", "low")
    assert_independent(llava, [item(row) for task in TASKS[:8] for row in reference.rows(task, "tgt")[:1]])


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA", "LA"])
def test_image_is_stretched_in_its_own_mode_before_it_becomes_rgb(mode: str, qwen: DecoderEmbedder) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 4), dtype=np.uint8)
    image = Image.fromarray(noise, "RGBA").convert("RGB" if mode == "P" else "RGBA").convert(mode)
    low = load("qwen2_vl", image_resolution="low").preprocess([Item(image=image)])
    by_hand = qwen.preprocess([Item(image=image.resize((128, 128)).convert("RGB"))])
    torch.testing.assert_close(low.inputs["pixel_values"], by_hand.inputs["pixel_values"], rtol=0, atol=0)


def test_small_images_alone_are_stretched_under_the_dynamic_policy() -> None:
    model = load("qwen2_vl", image_resolution="dynamic", max_pixels="1003520")
    grids = model.preprocess([Item(image=Image.new("RGB", size)) for size in ((20, 200), (280, 560), (3000, 2000))])
    small, middle, large = grids.inputs["image_grid_thw"].tolist()
    assert small == [1, 4, 4]
    assert middle == [1, 40, 20]
    assert large[1] * large[2] * 14**2 <= 1003520


@pytest.mark.parametrize("name", ["qwen2_vl", "llava_next", "phi3_v"])
def test_cost_and_counts_are_the_lengths_of_the_rows(name: str) -> None:
    model = load(name)
    items = [item(row) for row in (("no", ""), ("<|image_1|>\nRepresent it.\n", "set0/im006.jpg"), (SENTENCE, ""))]
    costs = [model.cost(one) for one in items]
    assert costs == [model.preprocess([one]).tokens for one in items] == [model.n_tokens(one) for one in items]
    batch = model.preprocess(items)
    assert (batch.size, batch.tokens) == (3, sum(costs))
    assert batch.padding == 3 * max(costs) - sum(costs)


def test_text_and_image_items_are_of_different_groups(qwen: DecoderEmbedder) -> None:
    text, image = Item("no"), item(("<|image_1|>\n", "set0/im000.png"))
    assert qwen.group(text) == qwen.group(Item("yes")) != qwen.group(image)


def test_published_settings_are_the_defaults() -> None:
    llava, qwen = load("llava_next").provenance["options"], load("qwen2_vl").provenance["options"]
    assert llava["image_resolution"] == qwen["image_resolution"] == "high"
    assert (qwen["positions"], qwen["bare_placeholder"], llava["bare_placeholder"]) == ("1d", "keep", "keep")
    assert Qwen25VLOptions().positions == "2d"


def test_provenance_tells_what_moves_a_score() -> None:
    plain, other = load("qwen2_vl"), load("qwen2_vl", image_resolution="low", positions="2d", max_length="100")
    assert plain.provenance != other.provenance
    assert json.loads(json.dumps(other.provenance)) == other.provenance
    assert other.provenance["options"] | {"positions": "2d", "max_length": 100} == other.provenance["options"]
    assert {"adapter", "checkpoint", "revision", "dtype", "prompt", "pooling"} <= plain.provenance.keys()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": "low"}, "no option 'resolution'"),
        ({"image_resolution": "huge"}, "'high', 'mid', 'low', 'none' or 'dynamic'"),
        ({"positions": "3d"}, "'1d' or '2d'"),
        ({"max_length": "-1"}, "max_length must be above 0, not '-1'"),
    ],
)
def test_unknown_option_or_value_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(MmebError, match=message):
        load("qwen2_vl", **options)


def test_prompt_with_two_placeholders_is_refused() -> None:
    with pytest.raises(MmebError, match="one image"):
        Item("<|image_1|> and <|image_1|>", image=IMAGES / "set0/im000.png")


def test_empty_text_embeds(qwen: DecoderEmbedder, llava: DecoderEmbedder) -> None:
    for model in (qwen, llava):
        vectors = embed(model, [Item(""), Item("no")])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(vectors[0], embed(model, [Item("")])[0], rtol=0, atol=1e-6)


def test_text_of_100_000_characters_embeds_and_is_counted_as_cut() -> None:
    model = load("qwen2_vl", max_length="512", image_resolution="low")
    text = (SENTENCE * 3000)[:100_000]
    for one in (Item(text), Item(f"<|image_1|>\n{text}", image=IMAGES / "set0/im000.png")):
        batch = model.preprocess([one])
        assert (batch.tokens, batch.truncated, model.cost(one)) == (512, 1, 512)
        with torch.inference_mode():
            assert model.embed(batch).isfinite().all()


def test_gradient_reaches_tower_and_decoder() -> None:
    model = load("qwen2_vl", image_resolution="low")
    names, weights = zip(*model.module.named_parameters(), strict=True)
    embedding = model.embed(model.preprocess([item(("<|image_1|>\nWhat?", "set0/im000.png"))]))
    gradients = torch.autograd.grad(embedding.sum(), weights, allow_unused=True)
    touched = {name.split(".")[0] for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
    assert touched == {"visual", "language_model"}
