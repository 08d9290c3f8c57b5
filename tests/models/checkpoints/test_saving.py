"""A model that was changed, saved and loaded again embeds as it did."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.torch import load_file
from support.paths import GOLDEN
from transformers import LlavaNextForConditionalGeneration, PreTrainedModel, Qwen2VLForConditionalGeneration

import mmeb
from mmeb.errors import MmebError
from mmeb.evaluation.probes import probes
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints import lora, weights
from mmeb.models.checkpoints.checkpoint import MANIFEST
from mmeb.models.checkpoints.weights import save_weights
from mmeb.models.loading import load_model

CKPT = GOLDEN / "ckpt"
ITEMS = [probes()[name] for name in ("text circle", "text long", "image rgb", "image palette", "both", "both gray")]
LOW = {"image_resolution": "low"}
DECODERS = {
    "phi35v": ("phi3_v", {}),
    "qwen2-vl": ("qwen2_vl", LOW),
    "llava-next": ("llava_next", LOW),
    "e5v": ("e5v", {}),
}


def load(adapter: str, folder: Path, **options: str) -> EmbeddingModel:
    return load_model(str(folder), adapter=adapter, device="cpu", options=options)


def embed(model: EmbeddingModel) -> NDArray[np.float32]:
    return mmeb.encode(model, ITEMS, batch_size=1, workers=0)


def change(model: EmbeddingModel) -> NDArray[np.float32]:
    """One large step of the optimizer on what is trained; returns the embeddings after it, which are others."""
    before = embed(model)
    trained = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    direction = torch.linspace(-1, 1, model.dim)
    for item in ITEMS:
        torch.autograd.backward((model.embed(model.preprocess([item])) @ direction).sum())
    optimizer.step()
    after = embed(model)
    assert np.abs(after - before).max() > 1e-2
    return after


def assert_same(found: EmbeddingModel, model: EmbeddingModel, expected: NDArray[np.float32]) -> None:
    """Every weight to the bit, and the embeddings but for where in memory the weights lie."""
    state, other = model.module.state_dict(), found.module.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
    np.testing.assert_allclose(embed(found), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("adapter", ["clip", "blip", "blip2"])
def test_all_weights_of_a_pair_of_towers_come_back(adapter: str, tmp_path: Path) -> None:
    model = load(adapter, CKPT / adapter)
    expected = change(model)
    model.save(tmp_path)
    assert_same(load(adapter, tmp_path), model, expected)


@pytest.mark.parametrize("name", ["siglip", "siglip2", "naflex"])
def test_all_weights_of_a_siglip_come_back(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = load("siglip", request.getfixturevalue(f"{name}_folder"))
    expected = change(model)
    model.save(tmp_path)
    assert_same(load("siglip", tmp_path), model, expected)


def test_all_weights_of_an_open_clip_model_come_back(open_clip_folder: Path, tmp_path: Path) -> None:
    model = load("open_clip", open_clip_folder)
    expected = change(model)
    model.save(tmp_path)
    assert_same(load("open_clip", tmp_path), model, expected)


@pytest.mark.parametrize("adapter", DECODERS)
def test_all_weights_of_a_decoder_come_back(adapter: str, tmp_path: Path) -> None:
    name, options = DECODERS[adapter]
    model = load(adapter, CKPT / name, **options)
    expected = change(model)
    model.save(tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    assert_same(load(adapter, tmp_path, **options), model, expected)


@pytest.mark.parametrize("dora", [True, False])
@pytest.mark.parametrize("adapter", DECODERS)
def test_a_lora_comes_back_beside_its_base_or_merged(adapter: str, dora: bool, tmp_path: Path) -> None:
    name, options = DECODERS[adapter]
    model = load(adapter, CKPT / name, **options)
    lora.create(model.module, ["down_proj", "o_proj"], rank=4, alpha=16, dropout=0.1, dora=dora, seed=0)
    lora.train_only(model.module)
    expected = change(model)
    model.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    assert_same(load(adapter, tmp_path, **options, lora="keep"), model, expected)
    np.testing.assert_allclose(embed(load(adapter, tmp_path, **options)), expected, rtol=0, atol=2e-6)


def test_the_demo_model_comes_back_in_half_precision(tmp_path: Path) -> None:
    model = DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))
    expected = change(model)
    model.save(tmp_path)
    np.testing.assert_allclose(embed(load("demo", tmp_path)), expected, rtol=0, atol=2e-3)


def test_many_weights_are_split_into_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHARD", "200KB")
    model = load("clip", CKPT / "clip")
    expected = change(model)
    model.save(tmp_path)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    assert_same(load("clip", tmp_path), model, expected)


def test_an_adapter_has_the_names_and_shapes_that_the_reference_saves(tmp_path: Path) -> None:
    model = load("phi35v", CKPT / "phi3_v")
    targets = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj", "q_proj", "out_proj", "v_proj"]
    lora.create(model.module, targets, rank=4, alpha=16, dropout=0.1, dora=True, seed=0)
    model.save(tmp_path)
    ours = load_file(tmp_path / "adapter_model.safetensors")
    reference = load_file(CKPT / "phi3_v_dora/adapter_model.safetensors")
    assert {name: each.shape for name, each in ours.items()} == {name: each.shape for name, each in reference.items()}


@pytest.mark.parametrize(
    ("adapter", "full_class"),
    [("qwen2-vl", Qwen2VLForConditionalGeneration), ("llava-next", LlavaNextForConditionalGeneration)],
)
def test_peft_puts_an_adapter_on_the_librarys_class(
    adapter: str, full_class: type[PreTrainedModel], tmp_path: Path
) -> None:
    name, options = DECODERS[adapter]
    folder = CKPT / name
    model = load(adapter, folder, **options)
    lora.create(model.module, ["q_proj", "down_proj"], rank=4, alpha=8, dropout=0.0, dora=True, seed=0)
    lora.train_only(model.module)
    change(model)
    model.save(tmp_path)
    theirs = PeftModel.from_pretrained(full_class.from_pretrained(folder), str(tmp_path))
    found = {name.removeprefix(f"{lora.WRAPPER}model."): each for name, each in theirs.named_parameters()}
    placed = [(name, each) for name, each in model.module.named_parameters() if ".lora_" in name]
    assert placed
    for name, each in placed:
        torch.testing.assert_close(found[name], each, rtol=0, atol=0, check_device=False)


def test_an_adapter_names_its_base_with_its_revision_and_refuses_a_changed_one(tmp_path: Path) -> None:
    base, trained = tmp_path / "base", tmp_path / "trained"
    base.mkdir()
    trained.mkdir()
    load("qwen2-vl", CKPT / "qwen2_vl").save(base)
    model = load("qwen2-vl", base, **LOW)
    lora.create(model.module, ["q_proj"], rank=2, alpha=4, dropout=0.0, dora=False, seed=0)
    model.save(trained)
    config = json.loads((trained / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base)
    assert config["revision"] == model.checkpoint.revision
    assert load("qwen2-vl", trained).provenance["base_revision"] == config["revision"]

    other = load("qwen2-vl", base, **LOW)
    change(other)
    save_weights(other.module, base, "model")
    with pytest.raises(MmebError, match=r"no longer what .* was trained on"):
        load("qwen2-vl", trained)
    assert load("qwen2-vl", trained, base=str(base)).dim == model.dim


def test_a_manifest_tells_adapter_and_options_and_is_overruled_by_the_user(tmp_path: Path) -> None:
    load("clip", CKPT / "clip").save(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps({"adapter": "clip", "options": {"text": "instruction"}}))
    assert load_model(str(tmp_path), device="cpu").options.text == "instruction"
    assert load_model(str(tmp_path), device="cpu", options={"text": "raw"}).options.text == "raw"
    assert load_model(str(tmp_path), adapter="clip", device="cpu").options.text == "instruction"


@pytest.mark.parametrize("content", ["{", "[]", '{"options": {}}', '{"adapter": "clip", "options": 3}'])
def test_a_broken_manifest_is_said_plainly(content: str, tmp_path: Path) -> None:
    load("clip", CKPT / "clip").save(tmp_path)
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(MmebError, match=r"mmeb\.json"):
        load_model(str(tmp_path), device="cpu")
