"""LLaVA-NeXT as a backbone, against what the reference implementation makes of the same prompts and images."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.adapters.pooling import last_token
from mmeb.models.backbones.base import EncodedRow
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.checkpoints.checkpoint import Checkpoint

CHECKPOINT = Checkpoint("tiny", "tiny", GOLDEN / "ckpt/llava_next")
SIDES = {"high": 1344, "low": 128, "none": None}
SENTENCE = "A red dog runs near the old house in the park. "
PROMPT = "<|image_1|>\nRepresent the given image.\n"


@pytest.fixture(scope="module")
def backbone() -> LlavaNextBackbone:
    return LlavaNextBackbone(CHECKPOINT)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CHECKPOINT.path, tmp_path / "copy"))


def picture(path: str, resolution: str = "none") -> Image.Image:
    image = Image.open(GOLDEN / "data/images" / path)
    side = SIDES[resolution]
    return image.resize((side, side)) if side else image


def embed(backbone: LlavaNextBackbone, rows: list[EncodedRow]) -> NDArray[np.float32]:
    batch = backbone.collate(rows)
    with torch.inference_mode():
        vectors: NDArray[np.float32] = last_token(backbone.forward(batch.inputs), batch.inputs["lengths"]).numpy()
    return vectors


@pytest.mark.parametrize(("resolution", "every"), [("none", 3), ("low", 9), ("high", 9)])
def test_tokens_and_pixels_are_the_reference_ones(backbone: LlavaNextBackbone, resolution: str, every: int) -> None:
    rows = json.loads((GOLDEN / f"inputs/llava_next_{resolution}.json").read_text())
    expected = np.load(GOLDEN / f"inputs/llava_next_{resolution}.npz")
    for number in range(0, len(rows), every):
        prompt, path = rows[number]["text"], rows[number]["img_path"]
        image = picture(path, resolution) if path else None
        encoded = backbone.encode(prompt, image)
        assert encoded.ids.tolist() == expected[f"ids/{number}"].tolist()
        assert backbone.n_tokens(prompt, image.size if image else None) == len(encoded.ids)
        if path:
            pixels = encoded.image["pixel_values"]
            assert list(pixels.shape) == rows[number]["pixel_values_shape"]
            assert encoded.image["image_sizes"].tolist() == rows[number]["image_sizes"]
            sampled = pixels.numpy().ravel()[expected[f"px/{path}/idx"]]
            np.testing.assert_allclose(sampled, expected[f"px/{path}/val"], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "path", "probe"),
    [
        (SENTENCE * 10, "", "text_len"),
        ("<|image_1|>\n" + SENTENCE * 10, "set0/im000.png", "img_text"),
        ("", "", "empty"),
        ("hello\n", "", "trailing_newline"),
        (" hello", "", "leading_space"),
    ],
)
def test_odd_inputs_become_the_tokens_of_the_reference(
    backbone: LlavaNextBackbone, text: str, path: str, probe: str
) -> None:
    expected = json.loads((GOLDEN / "quirks.json").read_text())["llava_next"][probe]
    ids = backbone.encode(text, picture(path, "low") if path else None).ids.tolist()
    assert (len(ids), ids[:6], ids[-6:]) == (expected["n"], expected["head"], expected["tail"])


def test_image_token_spelled_out_before_the_placeholder_stays_text(backbone: LlavaNextBackbone) -> None:
    row = backbone.encode("a <image> tag, then <|image_1|>", picture("set0/im000.png"))
    spelled, first = (row.ids == backbone.image_token_id).nonzero()[:2, 0]
    assert row.is_image.nonzero()[0, 0] == first
    assert not row.is_image[spelled]
    assert int(row.is_image.sum()) == backbone.n_image_tokens((64, 48))


def test_right_padding_without_mask_equals_left_padding_with_mask(backbone: LlavaNextBackbone) -> None:
    texts = ["no", SENTENCE * 3]
    right = embed(backbone, [backbone.encode(text, None) for text in texts])
    tokens = backbone.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    with torch.inference_mode():
        positions = (tokens.attention_mask.cumsum(1) - 1).clamp_min(0)
        hidden = backbone.module(**tokens, position_ids=positions).last_hidden_state[:, -1]
    np.testing.assert_allclose(right, torch.nn.functional.normalize(hidden, dim=-1).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("prompt", ["<|image_1|>\n{}", "{}<|image_1|>", "{}"])
def test_text_of_100_000_characters_is_cut_and_the_image_stays(prompt: str) -> None:
    backbone = LlavaNextBackbone(CHECKPOINT, max_length=1500)
    image = picture("set0/im000.png") if "<|image_1|>" in prompt else None
    text = prompt.format((SENTENCE * 3000)[:100_000])
    row = backbone.encode(text, image)
    assert (len(row.ids), row.truncated) == (1500, True)
    assert int(row.is_image.sum()) == (backbone.n_image_tokens(image.size) if image else 0)
    assert backbone.n_tokens(text, image.size if image else None) == 1500
    assert backbone.collate([row, backbone.encode("no", None)]).truncated == 1
    assert np.isfinite(embed(backbone, [row])).all()


def test_max_length_that_leaves_no_room_for_text_is_refused() -> None:
    backbone = LlavaNextBackbone(CHECKPOINT, max_length=64)
    with pytest.raises(MmebError, match="raise max_length"):
        backbone.encode(PROMPT, picture("set0/im000.png"))


@pytest.mark.parametrize("size", [(1, 1), (10_000, 10), (10, 10_000), (3, 3)])
@pytest.mark.parametrize("mode", ["RGB", "1"])
def test_extreme_images_embed(backbone: LlavaNextBackbone, size: tuple[int, int], mode: str) -> None:
    row = backbone.encode(PROMPT, Image.new(mode, size))
    assert backbone.n_tokens(PROMPT, size) == len(row.ids)
    assert np.isfinite(embed(backbone, [row])).all()


def test_counts_of_tokens_and_padding(backbone: LlavaNextBackbone) -> None:
    rows = [backbone.encode(text, None) for text in ("no", SENTENCE)]
    batch = backbone.collate(rows)
    lengths = [len(row.ids) for row in rows]
    assert (batch.size, batch.tokens, batch.padding) == (2, sum(lengths), max(lengths) - min(lengths))


def test_tokenizer_without_pad_token_serves(backbone: LlavaNextBackbone, copied: Path) -> None:
    config = json.loads((copied / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (copied / "tokenizer_config.json").write_text(json.dumps(config))
    without = LlavaNextBackbone(Checkpoint("copy", "copy", copied))
    assert without.tokenizer.pad_token_id is None
    texts = ["no", SENTENCE]
    found, expected = (embed(model, [model.encode(text, None) for text in texts]) for model in (without, backbone))
    np.testing.assert_array_equal(found, expected)


def test_tokenizer_without_image_token_is_refused(copied: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "ckpt/qwen2_vl" / name, copied / name)
    with pytest.raises(MmebError, match="no <image>"):
        LlavaNextBackbone(Checkpoint("copy", "copy", copied))


def change_weights(folder: Path, name: str, tensor: torch.Tensor | None) -> Checkpoint:
    """Set, or with None remove, one weight of the checkpoint."""
    weights = load_file(folder / "model.safetensors")
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return Checkpoint("copy", "copy", folder)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("language_model.model.norm.weight", None, r"lacks 1 weights \(language_model.norm.weight\)"),
        ("language_model.model.extra.weight", torch.zeros(3), r"no place for 1 \(.*extra.weight\)"),
        (
            "language_model.model.norm.weight",
            torch.zeros(32),
            r"1 are of another shape \(language_model.norm.weight is \(32,\), not \(64,\)\)",
        ),
    ],
    ids=["missing", "additional", "of another size"],
)
def test_weight_that_does_not_fit_the_config_is_refused(
    copied: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    checkpoint = change_weights(copied, name, tensor)
    with pytest.raises(MmebError, match=message):
        LlavaNextBackbone(checkpoint)


def test_cut_off_weights_are_refused(copied: Path) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(MmebError, match="can't be read"):
        LlavaNextBackbone(Checkpoint("copy", "copy", copied))


def test_checkpoint_without_image_processor_is_refused(copied: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(MmebError, match=r"no readable preprocessor_config\.json"):
        LlavaNextBackbone(Checkpoint("copy", "copy", copied))


def test_config_that_asks_for_flash_attention_is_read_without_it(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text())
    config |= {"_attn_implementation": "flash_attention_2", "attn_implementation": "flash_attention_2"}
    config["text_config"]["_attn_implementation"] = "flash_attention_2"
    (copied / "config.json").write_text(json.dumps(config))
    backbone = LlavaNextBackbone(Checkpoint("copy", "copy", copied))
    assert backbone.module.language_model.config._attn_implementation == "sdpa"
    assert backbone.module.vision_tower.config._attn_implementation == "sdpa"


def test_another_architecture_is_refused() -> None:
    with pytest.raises(MmebError, match="is a qwen2_vl model, not llava_next"):
        LlavaNextBackbone(Checkpoint("qwen", "qwen", GOLDEN / "ckpt/qwen2_vl"))


def test_weights_in_pickled_form_are_read_as_tensors_only(backbone: LlavaNextBackbone, copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    pickled = LlavaNextBackbone(Checkpoint("copy", "copy", copied))
    np.testing.assert_array_equal(
        embed(pickled, [pickled.encode("no", None)]), embed(backbone, [backbone.encode("no", None)])
    )


def test_automatic_device_map_changes_nothing(backbone: LlavaNextBackbone) -> None:
    spread = LlavaNextBackbone(CHECKPOINT, device="auto")
    row = backbone.encode(PROMPT, picture("set0/im000.png"))
    np.testing.assert_allclose(embed(spread, [row]), embed(backbone, [row]), rtol=0, atol=1e-7)
