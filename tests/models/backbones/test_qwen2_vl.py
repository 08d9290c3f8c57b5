"""What is Qwen2-VL's and Qwen2.5-VL's own: positions against the library's own forward pass, and the pixel budget."""

import json
import shutil

import numpy as np
import pytest
import torch
from support.backbones import PROMPT, SENTENCE, embed, load, picture, tiny
from support.paths import GOLDEN
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel, Qwen2VLImageProcessorPil, Qwen2VLModel

from mmeb.models.backbones.qwen2_vl import Qwen2VLBackbone, Qwen25VLBackbone
from mmeb.models.checkpoints.checkpoint import Checkpoint

FOLDER = GOLDEN / "ckpt/qwen2_vl"


@pytest.fixture(scope="module")
def backbone() -> Qwen2VLBackbone:
    backbone: Qwen2VLBackbone = tiny("qwen2_vl")
    return backbone


@pytest.fixture(scope="module")
def qwen25(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A random Qwen2.5-VL of the size of the tiny Qwen2-VL, with its tokenizer, in the official layout."""
    folder = tmp_path_factory.mktemp("qwen25")
    old = json.loads((FOLDER / "config.json").read_text())
    names = ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"]
    names += ["rms_norm_eps", "rope_theta", "rope_scaling", "vocab_size", "bos_token_id", "eos_token_id"]
    tower: dict[str, int | list[int]] = {
        "depth": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": 64,
    }
    tower |= {"window_size": 56, "fullatt_block_indexes": [1]}
    ids = {f"{name}_token_id": old[f"{name}_token_id"] for name in ("image", "video", "vision_start", "vision_end")}
    torch.manual_seed(0)
    model = Qwen2_5_VLModel(
        Qwen2_5_VLConfig(text_config={name: old[name] for name in names}, vision_config=tower, **ids)
    )
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / name, folder / name)
    return Checkpoint("tiny", "tiny", folder)


def test_empty_text_is_one_padding_token(backbone: Qwen2VLBackbone) -> None:
    row = backbone.encode("", None)
    assert row.ids.tolist() == [backbone.tokenizer.pad_token_id]
    assert backbone.n_tokens("", None) == 1
    alone, beside = embed(backbone, [row]), embed(backbone, [row, backbone.encode(SENTENCE, None)])
    np.testing.assert_allclose(beside[0], alone[0], rtol=0, atol=1e-6)


def test_max_length_cuts_text_and_keeps_the_image() -> None:
    backbone = load("qwen2_vl", max_length=64)
    expected = json.loads((GOLDEN / "quirks.json").read_text())["qwen2_vl"]["img_text_max_len_64"]
    row = backbone.encode("<|image_1|>\n" + SENTENCE * 10, picture("set0/im000.png", "low"))
    assert (row.ids.tolist()[-6:], row.truncated) == (expected["tail"], True)
    assert (len(row.ids), int(row.is_image.sum())) == (expected["n"], expected["n_img_tok"])


def test_pixel_budget_bounds_the_image_tokens() -> None:
    backbone = load("qwen2_vl", min_pixels=100 * 28**2, max_pixels=200 * 28**2)
    for path in ("set0/im030.png", "set2/im011.png"):  # 30 x 30 and 500 x 300 pixels
        assert 100 <= backbone.encode(PROMPT, picture(path)).is_image.sum() <= 200


@pytest.mark.parametrize("version", ["2", "2.5"])
@pytest.mark.parametrize("prompt", ["<|image_1|>\nRepresent it.\n", "Look: <|image_1|>", "no image"])
def test_two_dimensional_positions_give_the_library_s_own_forward_pass(
    version: str, prompt: str, qwen25: Checkpoint
) -> None:
    checkpoint, ours, theirs = (
        (Checkpoint("tiny", "tiny", FOLDER), Qwen2VLBackbone, Qwen2VLModel)
        if version == "2"
        else (qwen25, Qwen25VLBackbone, Qwen2_5_VLModel)
    )
    backbone = ours(checkpoint, positions="2d")
    image = picture("set0/im006.jpg") if "<|image_1|>" in prompt else None
    found = embed(backbone, [backbone.encode(prompt, image), backbone.encode(SENTENCE, None)])[0]

    text, inputs = prompt, {}
    if image is not None:
        inputs = dict(Qwen2VLImageProcessorPil.from_pretrained(checkpoint.path)(image, return_tensors="pt"))
        text = prompt.replace("<|image_1|>", "<|image_pad|>" * int(inputs["image_grid_thw"].prod() // 4))
    ids = torch.tensor([backbone.tokenizer(text).input_ids])
    if image is not None:
        inputs["mm_token_type_ids"] = (ids == backbone.image_token_id).int()
    with torch.inference_mode():
        hidden = theirs.from_pretrained(checkpoint.path)(input_ids=ids, **inputs).last_hidden_state
    expected = torch.nn.functional.normalize(hidden[0, -1], dim=0).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_positions_make_a_difference() -> None:
    vectors = []
    for positions in ("1d", "2d"):
        backbone = load("qwen2_vl", positions=positions)
        vectors.append(embed(backbone, [backbone.encode(PROMPT, picture("set2/im011.png"))]))
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_images_of_a_batch_go_through_the_tower_at_once(backbone: Qwen2VLBackbone) -> None:
    calls: list[int] = []
    hook = backbone.module.visual.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    try:
        rows = [backbone.encode(PROMPT, picture(path)) for path in ("set0/im000.png", "set0/im030.png")]
        embed(backbone, rows)
    finally:
        hook.remove()
    assert calls == [sum(len(row.image["pixel_values"]) for row in rows)]
