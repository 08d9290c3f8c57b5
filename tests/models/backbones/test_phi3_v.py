"""What is Phi-3.5-V's own beside what all backbones do."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.backbones import PROMPT, SENTENCE, copy_of, embed, load, picture, tiny
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.adapters.decoder_embedder import last_token
from mmeb.models.backbones.phi3_v import Phi3VBackbone


@pytest.fixture(scope="module")
def backbone() -> Phi3VBackbone:
    backbone: Phi3VBackbone = tiny("phi3_v")
    return backbone


def test_short_row_beside_one_beyond_the_original_context_keeps_its_vector() -> None:
    backbone = load("phi3_v", max_length=10_000)
    golden = np.load(GOLDEN / "mixed/phi3_v.npz")
    short, long = embed(backbone, [backbone.encode(text, None) for text in ("no", SENTENCE * 420)])
    np.testing.assert_allclose(long, golden["t_long"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(short, golden["single.t_short"], rtol=0, atol=1e-5)
    assert backbone.group(4096) != backbone.group(backbone.n_tokens(SENTENCE * 420, None))


def test_special_token_written_in_a_text_is_that_token(backbone: Phi3VBackbone) -> None:
    assert 907 in backbone.encode("a <|end|> b", None).ids


def test_tower_sees_only_the_crops_that_the_images_have(backbone: Phi3VBackbone) -> None:
    seen: list[int] = []
    tower = backbone.module.model.vision_embed_tokens.img_processor["vision_model"]
    hook = tower.embeddings.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    try:
        paths = ("set0/im000.png", "", "set0/im039.png")
        embed(backbone, [backbone.encode(PROMPT, picture(path)) for path in paths])
    finally:
        hook.remove()
    assert seen == [(1 + 4) + (1 + 2)]


def test_right_padding_needs_no_mask(backbone: Phi3VBackbone) -> None:
    rows = [backbone.encode(PROMPT, picture("set0/im000.png"))]
    rows += [backbone.encode(text, None) for text in ("no", SENTENCE * 3)]
    batch = backbone.collate(rows)
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
        embed(backbone, [backbone.encode(text, None) for text in ("no", SENTENCE)])
    finally:
        hook.remove()
    assert masks == [None]


def test_max_length_cuts_text_alone_and_counts_it() -> None:
    backbone = load("phi3_v", max_length=16)
    expected = json.loads((GOLDEN / "quirks.json").read_text())["phi3_v"]
    with_image = backbone.encode("<|image_1|>\n" + SENTENCE * 10, picture("set0/im000.png"))
    rows = [backbone.encode(SENTENCE * 10, None), with_image]
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
    image = picture("set0/im000.png")
    assert image is not None
    text = prompt.format((SENTENCE * 3000)[:100_000])
    row = small_positions.encode(text, image)
    assert (len(row.ids), int(row.is_image.sum()), row.truncated) == (1000, 757, True)
    assert small_positions.n_tokens(text, image.size) == 1000
    assert np.isfinite(embed(small_positions, [row])).all()


def test_image_that_fills_all_positions_is_refused(small_positions: Phi3VBackbone) -> None:
    small_positions.num_crops = 16
    with pytest.raises(MmebError, match="num_crops"):
        small_positions.encode("<|image_1|>\n", picture("set0/im000.png"))


@pytest.fixture
def small_positions(tmp_path: Path) -> Phi3VBackbone:
    """The tiny checkpoint with 1000 positions in all."""
    folder = copy_of("phi3_v", tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"max_position_embeddings": 1000, "original_max_position_embeddings": 500}
    (folder / "config.json").write_text(json.dumps(config))
    backbone: Phi3VBackbone = load("phi3_v", folder)
    return backbone


@pytest.mark.parametrize("num_crops", [0, 17])
def test_number_of_crops_out_of_range_is_refused(num_crops: int) -> None:
    with pytest.raises(MmebError, match="1 to 16"):
        load("phi3_v", num_crops=num_crops)
