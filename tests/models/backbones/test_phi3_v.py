"""Phi-3.5-V as a backbone, against what the reference implementation computed with the same tiny checkpoint."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.adapters.pooling import last_token
from mmeb.models.backbones.base import EncodedRow
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.checkpoints import lora
from mmeb.models.checkpoints.checkpoint import Checkpoint

IMAGES = GOLDEN / "data/images"
CHECKPOINT = Checkpoint("tiny", "tiny", GOLDEN / "ckpt/phi3_v")
SENTENCE = "A red dog runs near the old house in the park. "
IMAGE_ROW = ("<|image_1|>\nRepresent the given image.\n", "set0/im000.png")
TASKS = sorted(path.name for path in (GOLDEN / "data/MMEB-eval").iterdir() if path.is_dir())

Row = tuple[str, str]  # prompt and image path, as in the reference's files


def encode(backbone: Phi3VBackbone, row: Row) -> EncodedRow:
    prompt, path = row
    return backbone.encode(prompt, Image.open(IMAGES / path) if path else None)


def embed(backbone: Phi3VBackbone, rows: list[Row]) -> NDArray[np.float32]:
    """Unit vectors of `rows` in one batch, (n, 64)."""
    batch = backbone.collate([encode(backbone, row) for row in rows])
    with torch.inference_mode():
        vectors: NDArray[np.float32] = last_token(backbone.forward(batch.inputs), batch.inputs["lengths"]).numpy()
    return vectors


@pytest.fixture(scope="module")
def backbone() -> Phi3VBackbone:
    return Phi3VBackbone(CHECKPOINT)


@pytest.fixture(scope="module")
def backbone_16() -> Phi3VBackbone:
    return Phi3VBackbone(CHECKPOINT, num_crops=16)


class Reference:
    """The reference's embeddings and predictions of the small suite, each row encoded by itself."""

    def __init__(self, num_crops: int) -> None:
        path = GOLDEN / f"eval/phi3_v_c{num_crops}_bs1"
        self.keys = json.loads(path.with_suffix(".json").read_text())["subsets"]
        self.arrays = np.load(path.with_suffix(".npz"))

    def rows(self, task: str, side: str) -> list[Row]:
        return [(prompt, path) for prompt, path in self.keys[task][f"{side}_keys"]]

    def embeddings(self, task: str, side: str) -> NDArray[np.float32]:
        embeddings: NDArray[np.float32] = self.arrays[f"{task}/{side}"]
        return embeddings


def assert_same_predictions(reference: Reference, task: str, backbone: Phi3VBackbone) -> None:
    """Every query and candidate of a task: embeddings to 1e-5, and the same candidate chosen in every row."""
    vectors: dict[str, dict[Row, NDArray[np.float32]]] = {}
    for side in ("qry", "tgt"):
        rows = reference.rows(task, side)
        found = np.concatenate([embed(backbone, rows[start : start + 8]) for start in range(0, len(rows), 8)])
        np.testing.assert_allclose(found, reference.embeddings(task, side), rtol=0, atol=1e-5)
        vectors[side] = dict(zip(rows, found, strict=True))
    data = pd.read_parquet(GOLDEN / "data/MMEB-eval" / task)
    chosen = []
    for row in data.to_dict("records"):
        query = vectors["qry"][row["qry_text"], row["qry_img_path"]]
        candidates = [vectors["tgt"][key] for key in zip(row["tgt_text"], row["tgt_img_path"], strict=True)]
        chosen.append(int(np.argmax(np.stack(candidates) @ query)))
    assert chosen == reference.arrays[f"{task}/pred"].tolist()


@pytest.mark.parametrize("num_crops", [4, 16])
def test_token_ids_are_the_reference_ones(num_crops: int, request: pytest.FixtureRequest) -> None:
    backbone = request.getfixturevalue("backbone" if num_crops == 4 else "backbone_16")
    rows = json.loads((GOLDEN / f"inputs/phi3_v_c{num_crops}.json").read_text())
    expected = np.load(GOLDEN / f"inputs/phi3_v_c{num_crops}.npz")
    for number, row in list(enumerate(rows))[:: num_crops // 4]:
        encoded = encode(backbone, (row["text"], row["img_path"]))
        assert encoded.ids.tolist() == expected[f"ids/{number}"].tolist(), row["text"]
        assert encoded.is_image.sum() == (encoded.ids == -1).sum()


def test_token_count_needs_no_pixels(backbone_16: Phi3VBackbone) -> None:
    for row in json.loads((GOLDEN / "inputs/phi3_v_c16.json").read_text()):
        size = Image.open(IMAGES / row["img_path"]).size if row["img_path"] else None
        assert backbone_16.n_tokens(row["text"], size) == row["n_tokens"]


@pytest.mark.parametrize("task", TASKS)
def test_every_prediction_is_the_reference_one(backbone: Phi3VBackbone, task: str) -> None:
    assert_same_predictions(Reference(4), task, backbone)


def test_every_prediction_with_16_crops_is_the_reference_one(backbone_16: Phi3VBackbone) -> None:
    assert_same_predictions(Reference(16), "ImageNet-1K", backbone_16)


@pytest.mark.parametrize("task", ["CIRR", "RefCOCO-Matching", "WebQA"])
def test_embeddings_with_16_crops_are_the_reference_ones(backbone_16: Phi3VBackbone, task: str) -> None:
    reference = Reference(16)
    found = embed(backbone_16, reference.rows(task, "tgt")[:3])
    np.testing.assert_allclose(found, reference.embeddings(task, "tgt")[:3], rtol=0, atol=1e-5)


def test_rows_in_one_batch_equal_the_rows_alone(backbone: Phi3VBackbone) -> None:
    rows: list[Row] = [("no", ""), IMAGE_ROW, ("", ""), (IMAGE_ROW[0], "set1/im031.png"), (SENTENCE, "")]
    alone = np.concatenate([embed(backbone, [row]) for row in rows])
    np.testing.assert_allclose(embed(backbone, rows), alone, rtol=0, atol=1e-6)
    np.testing.assert_allclose(embed(backbone, rows[::-1])[::-1], alone, rtol=0, atol=1e-6)
    golden = np.load(GOLDEN / "mixed/phi3_v.npz")
    for vector, name in zip(alone, ("t_short", "i_a", "t_empty"), strict=False):
        np.testing.assert_allclose(vector, golden[f"single.{name}"], rtol=0, atol=1e-5)


def test_short_row_beside_one_beyond_the_original_context_keeps_its_vector() -> None:
    backbone = Phi3VBackbone(CHECKPOINT, max_length=10_000)
    golden = np.load(GOLDEN / "mixed/phi3_v.npz")
    short, long = embed(backbone, [("no", ""), (SENTENCE * 420, "")])
    np.testing.assert_allclose(long, golden["t_long"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(short, golden["single.t_short"], rtol=0, atol=1e-5)
    assert backbone.group(4096) != backbone.group(backbone.n_tokens(SENTENCE * 420, None))


def test_placeholder_without_image_is_plain_text(backbone: Phi3VBackbone) -> None:
    texts = json.loads((GOLDEN / "tag_without_image.json").read_text())["texts"]
    golden = np.load(GOLDEN / "tag_without_image.npz")
    for number, text in enumerate(texts):
        assert backbone.encode(text, None).ids.tolist() == golden[f"phi3_v/ids/{number}"].tolist()
    vectors = embed(backbone, [(text, "") for text in texts])
    np.testing.assert_allclose(vectors, golden["phi3_v/embeddings"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "image", "probe"),
    [
        (SENTENCE * 10, "", "text_len"),
        ("<|image_1|>\n" + SENTENCE * 10, "set0/im000.png", "img_text"),
        ("", "", "empty"),
        ("hello\n", "", "trailing_newline"),
        (" hello", "", "leading_space"),
    ],
)
def test_odd_inputs_become_the_tokens_of_the_reference(
    backbone: Phi3VBackbone, text: str, image: str, probe: str
) -> None:
    expected = json.loads((GOLDEN / "quirks.json").read_text())["phi3_v"][probe]
    ids = encode(backbone, (text, image)).ids.tolist()
    assert (len(ids), ids[:6], ids[-6:]) == (expected["n"], expected["head"], expected["tail"])


def test_special_token_written_in_a_text_is_that_token(backbone: Phi3VBackbone) -> None:
    assert 907 in backbone.encode("a <|end|> b", None).ids


def test_tower_sees_only_the_crops_that_the_images_have(backbone: Phi3VBackbone) -> None:
    seen: list[int] = []
    tower = backbone.module.model.vision_embed_tokens.img_processor["vision_model"]
    hook = tower.embeddings.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        embed(backbone, [IMAGE_ROW, ("no", ""), (IMAGE_ROW[0], "set0/im039.png")])
    finally:
        hook.remove()
    assert seen == [(1 + 4) + (1 + 2)]


def test_right_padding_needs_no_mask(backbone: Phi3VBackbone) -> None:
    batch = backbone.collate([encode(backbone, row) for row in (IMAGE_ROW, ("no", ""), (SENTENCE * 3, ""))])
    inputs, lengths = batch.inputs, batch.inputs["lengths"]
    with torch.inference_mode():
        model = backbone.module.model
        features = model.vision_embed_tokens(inputs["crops"], inputs["layout"])
        embeddings = model.embed_tokens(inputs["input_ids"].clamp_min(0))
        embeddings[inputs["is_image"]] = features
        mask = torch.arange(embeddings.shape[1]) < lengths[:, None]
        masked = model(inputs_embeds=embeddings, attention_mask=mask.long()).last_hidden_state
        unmasked = backbone.forward(inputs)
    assert (last_token(unmasked, lengths) - last_token(masked, lengths)).abs().max() < 1e-6


def test_decoder_is_given_no_mask_so_that_attention_takes_its_fast_path(backbone: Phi3VBackbone) -> None:
    masks: list[object] = []
    layer = backbone.module.model.layers[0]
    hook = layer.register_forward_pre_hook(
        lambda _module, _args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    )
    try:
        embed(backbone, [("no", ""), (SENTENCE, "")])
    finally:
        hook.remove()
    assert masks == [None]


def test_adapter_with_magnitudes_merged_and_unmerged_is_the_reference_one() -> None:
    golden = np.load(GOLDEN / "phi3_v_dora.npz")
    rows = [(text, path) for text, path in json.loads((GOLDEN / "phi3_v_dora.json").read_text())["rows"]]
    for merge, name in ((True, "merged"), (False, "unmerged")):
        backbone = Phi3VBackbone(CHECKPOINT)
        lora.attach(backbone.module, GOLDEN / "ckpt/phi3_v_dora", (), merge=merge)
        for number, vector in enumerate(embed(backbone, rows)):
            np.testing.assert_allclose(vector, golden[f"{name}/{number}"], rtol=0, atol=1e-5)
            assert np.abs(vector - golden[f"base/{number}"]).max() > 1e-3


def test_max_length_cuts_text_alone_and_counts_it() -> None:
    backbone = Phi3VBackbone(CHECKPOINT, max_length=16)
    expected = json.loads((GOLDEN / "quirks.json").read_text())["phi3_v"]
    rows = [encode(backbone, row) for row in ((SENTENCE * 10, ""), ("<|image_1|>\n" + SENTENCE * 10, "set0/im000.png"))]
    assert rows[0].ids.tolist()[-6:] == expected["text_max_len_16"]["tail"]
    assert [len(row.ids) for row in rows] == [16, expected["img_text_max_len_64"]["n"]]
    assert backbone.collate(rows).truncated == 1


def test_text_of_100_000_characters_is_cut_at_256_tokens(backbone: Phi3VBackbone) -> None:
    text = (SENTENCE * 3000)[:100_000]
    row = backbone.encode(text, None)
    assert (len(row.ids), row.truncated) == (256, True)
    assert backbone.n_tokens(text, None) == 256


@pytest.mark.parametrize("prompt", ["<|image_1|>\n{}", "{}<|image_1|>"])
def test_text_with_an_image_is_cut_where_the_positions_end_and_the_image_stays(
    small_positions: Phi3VBackbone, prompt: str
) -> None:
    image = Image.open(IMAGES / IMAGE_ROW[1])
    text = prompt.format((SENTENCE * 3000)[:100_000])
    row = small_positions.encode(text, image)
    assert (len(row.ids), int(row.is_image.sum()), row.truncated) == (1000, 757, True)
    assert small_positions.n_tokens(text, image.size) == 1000
    batch = small_positions.collate([row])
    with torch.inference_mode():
        assert small_positions.forward(batch.inputs).isfinite().all()


def test_image_that_fills_all_positions_is_refused(small_positions: Phi3VBackbone) -> None:
    small_positions.num_crops = 16
    with pytest.raises(MmebError, match="num_crops"):
        small_positions.encode("<|image_1|>\n", Image.open(IMAGES / IMAGE_ROW[1]))


@pytest.fixture
def small_positions(tmp_path: Path) -> Phi3VBackbone:
    """The tiny checkpoint with 1000 positions in all."""
    for file in CHECKPOINT.path.iterdir():
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"max_position_embeddings": 1000, "original_max_position_embeddings": 500}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    return Phi3VBackbone(Checkpoint("small", "small", tmp_path))


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000)])
def test_extreme_images_embed(backbone: Phi3VBackbone, size: tuple[int, int]) -> None:
    batch = backbone.collate([backbone.encode(IMAGE_ROW[0], Image.new("L", size))])
    with torch.inference_mode():
        assert last_token(backbone.forward(batch.inputs), batch.inputs["lengths"]).isfinite().all()


@pytest.mark.parametrize("num_crops", [0, 17])
def test_number_of_crops_out_of_range_is_refused(num_crops: int) -> None:
    with pytest.raises(MmebError, match="1 to 16"):
        Phi3VBackbone(CHECKPOINT, num_crops=num_crops)
