"""What is LLaVA-NeXT's own beside what all backbones do."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support.backbones import PROMPT, SENTENCE, copy_of, embed, load, picture, tiny
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.backbones.llava_next import LlavaNextBackbone


@pytest.fixture(scope="module")
def backbone() -> LlavaNextBackbone:
    backbone: LlavaNextBackbone = tiny("llava_next")
    return backbone


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return copy_of("llava_next", tmp_path / "copy")


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
    backbone = load("llava_next", max_length=1500)
    image = picture("set0/im000.png") if "<|image_1|>" in prompt else None
    text = prompt.format((SENTENCE * 3000)[:100_000])
    row = backbone.encode(text, image)
    assert (len(row.ids), row.truncated) == (1500, True)
    assert int(row.is_image.sum()) == (backbone.n_image_tokens(image.size) if image else 0)
    assert backbone.n_tokens(text, image.size if image else None) == 1500
    assert backbone.collate([row, backbone.encode("no", None)]).truncated == 1
    assert np.isfinite(embed(backbone, [row])).all()


def test_max_length_that_leaves_no_room_for_text_is_refused() -> None:
    backbone = load("llava_next", max_length=64)
    with pytest.raises(MmebError, match="raise max_length"):
        backbone.encode(PROMPT, picture("set0/im000.png"))


def test_tokenizer_without_image_token_is_refused(copied: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(GOLDEN / "ckpt/qwen2_vl" / name, copied / name)
    with pytest.raises(MmebError, match="no <image>"):
        load("llava_next", copied)


def test_checkpoint_without_image_processor_is_refused(copied: Path) -> None:
    (copied / "preprocessor_config.json").unlink()
    with pytest.raises(MmebError, match=r"no preprocessor_config\.json that can be read"):
        load("llava_next", copied)


def test_config_that_asks_for_flash_attention_is_read_without_it(copied: Path) -> None:
    path = copied / "config.json"
    config = json.loads(path.read_text())
    config |= {"_attn_implementation": "flash_attention_2", "attn_implementation": "flash_attention_2"}
    config["text_config"]["_attn_implementation"] = "flash_attention_2"
    path.write_text(json.dumps(config))
    backbone = load("llava_next", copied)
    assert backbone.module.language_model.config._attn_implementation == "sdpa"
    assert backbone.module.vision_tower.config._attn_implementation == "sdpa"
