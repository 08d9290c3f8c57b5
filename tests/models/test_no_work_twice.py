"""What no model does: read an image twice, keep what is not asked for, mask what causal attention never sees."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.paths import GOLDEN
from torch import Tensor, nn
from transformers.utils import ModelOutput

from mmeb.data.images.image import FileImage
from mmeb.data.item import Item
from mmeb.evaluation.encode import encode
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model

IMAGES = GOLDEN / "data/images"
DECODERS = {
    "phi3_v": ("phi35v", {}),
    "qwen2_vl": ("qwen2-vl", {"image_resolution": "none", "positions": "2d"}),
    "llava_next": ("llava-next", {"image_resolution": "none"}),
    "e5v": ("e5v", {}),
}
TOWERS: dict[str, tuple[str, dict[str, str]]] = {name: (name, {}) for name in ("clip", "blip", "blip2")}
FAMILIES = [*DECODERS, *TOWERS, "siglip", "demo"]
PIXELS = ("crops", "pixel_values")  # the towers' input; the demo's model has none of its own


@dataclass(frozen=True, eq=False)
class Watched(FileImage):
    """A file that notes each time it is read as a whole."""

    reads: list[str] = field(default_factory=list)

    def read(self) -> bytes:
        self.reads.append(self.key)
        return super().read()


@cache
def load(family: str) -> EmbeddingModel:
    if family == "demo":
        return DemoModel.new(DemoConfig(), seed=0, device=torch.device("cpu"))
    adapter, options = (DECODERS | TOWERS)[family]
    return load_model(str(GOLDEN / "ckpt" / family), adapter=adapter, device="cpu", options=options)


@pytest.fixture
def model(request: pytest.FixtureRequest) -> EmbeddingModel:
    if request.param == "siglip":
        return load_model(str(request.getfixturevalue("siglip_folder")), device="cpu")
    return load(request.param)


def items(reads: list[str] | None = None) -> list[Item]:
    """Three items with an image, of which the first and the last have the same, in two references."""
    texts = ["What is it?", "Where is it, and who is there beside it?", "Which colour has it?"]
    paths = ["set0/im000.png", "set2/im011.png", "set0/im000.png"]
    noted = [] if reads is None else reads
    return [
        Item(f"<|image_1|>\n{text}\n", image=Watched(IMAGES / path, reads=noted))
        for text, path in zip(texts, paths, strict=True)
    ]


def embed(model: EmbeddingModel, chosen: list[Item]) -> NDArray[np.float32]:
    with torch.inference_mode():
        vectors: NDArray[np.float32] = model.embed(model.preprocess(chosen)).numpy()
    return vectors


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_image_of_several_items_is_read_once(model: EmbeddingModel) -> None:
    reads: list[str] = []
    model.preprocess(items(reads))
    assert sorted(reads) == [str(IMAGES / "set0/im000.png"), str(IMAGES / "set2/im011.png")]


@pytest.mark.parametrize("model", [family for family in FAMILIES if family != "demo"], indirect=True)
def test_image_of_several_items_goes_through_the_tower_once(model: EmbeddingModel) -> None:
    shared, apart = (model.preprocess(chosen).inputs for chosen in (items(), items()[:2]))
    assert [shared[name].shape for name in PIXELS if name in shared] == [
        apart[name].shape for name in PIXELS if name in apart
    ]


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_items_with_one_image_have_the_vectors_that_they_have_alone(
    model: EmbeddingModel, order: tuple[int, int, int]
) -> None:
    three = items()
    alone = np.concatenate([embed(model, [three[place]]) for place in order])
    np.testing.assert_allclose(embed(model, [three[place] for place in order]), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_cost_needs_the_header_alone(model: EmbeddingModel) -> None:
    reads: list[str] = []
    for item in items(reads):
        model.cost(item), model.group(item)
    assert reads == []


@pytest.mark.parametrize("model", DECODERS, indirect=True)
def test_decoder_has_no_head_and_keeps_neither_states_nor_a_cache(model: EmbeddingModel) -> None:
    assert not [name for name in model.module.state_dict() if "lm_head" in name]
    kept: list[str] = []

    def look(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, ModelOutput):
            kept.extend(name for name in ("past_key_values", "attentions") if output.get(name) is not None)
            # LLaVA reads one layer's state of its tower, which stands in its place among those that were not kept.
            states = [state for state in output.get("hidden_states") or () if isinstance(state, Tensor)]
            kept.extend("hidden_states" for _ in states[1:])

    hooks = [module.register_forward_hook(look) for module in model.module.modules()]
    try:
        embed(model, items())
    finally:
        for hook in hooks:
            hook.remove()
    assert kept == []


@pytest.mark.parametrize("model", [*DECODERS, "clip", "siglip"], indirect=True)
def test_rows_padded_on_the_right_need_no_mask(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[bool] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        masks.append(len(args) > 3 or kwargs.get("attn_mask") is not None)
        return attention(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    embed(model, items())
    embed(model, [Item(text="a boat"), Item(text="a house beside the river, seen from the park")])
    assert masks
    assert not any(masks)


@pytest.mark.parametrize("model", FAMILIES, indirect=True)
def test_items_are_encoded_in_inference_mode(model: EmbeddingModel) -> None:
    modes: list[bool] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, __: modes.append(torch.is_inference_mode_enabled()))
        for module in model.module.modules()
    ]
    try:
        encode(model, items(), workers=0)
    finally:
        for hook in hooks:
            hook.remove()
    assert modes
    assert all(modes)


def test_attention_of_packed_images_is_within_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not kwargs.get("is_causal"):  # of the tower
            lengths.append(query.shape[-2])
        return attention(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model = load("qwen2_vl")
    grids = model.preprocess(items()).inputs["image_grid_thw"]
    embed(model, items())
    assert set(lengths) == set(grids.prod(dim=1).tolist())
    assert len(set(lengths)) == 2
