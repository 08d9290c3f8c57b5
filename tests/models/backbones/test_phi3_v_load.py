"""Which Phi-3.5-V checkpoints load: its own key names, buffers and settings."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.backbones import change_weights, copy_of, load, tiny
from support.paths import GOLDEN
from torch import Tensor

from mmeb.errors import MmebError
from mmeb.models.backbones.phi3_v import Phi3VBackbone

OFFICIAL = GOLDEN / "ckpt/phi3_v"
EMBEDDINGS, ALIAS = "model.embed_tokens.weight", "model.vision_embed_tokens.wte.weight"
TOWER = "model.vision_embed_tokens.img_processor.vision_model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_of("phi3_v", tmp_path / "copy")


def change_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def embedding(backbone: Phi3VBackbone) -> Tensor:
    batch = backbone.collate([backbone.encode("A red dog.", None)])
    with torch.inference_mode():
        return backbone.forward(batch.inputs)


def test_the_language_model_head_is_not_loaded() -> None:
    assert not [name for name, _ in tiny("phi3_v").module.named_parameters() if "lm_head" in name]


def test_official_key_names_are_the_module_names() -> None:
    official = set(json.loads((OFFICIAL / "keys.json").read_text())["keys"])
    assert set(tiny("phi3_v").module.state_dict()) == official - {"lm_head.weight"}


@pytest.mark.parametrize("kept", [(EMBEDDINGS, ALIAS), (ALIAS,)])
def test_embeddings_may_stand_under_either_name_or_both(folder: Path, kept: tuple[str, ...]) -> None:
    def rename(weights: dict[str, Tensor]) -> None:
        table = weights.pop(EMBEDDINGS)
        weights.update({name: table.clone() for name in kept})

    change_weights(folder, rename)
    assert torch.equal(embedding(load("phi3_v", folder)), embedding(tiny("phi3_v")))


def test_position_buffers_of_the_tower_are_no_error(folder: Path) -> None:
    positions = {f"{TOWER}.embeddings.position_ids": torch.arange(577)[None]}
    change_weights(folder, lambda weights: weights.update(positions))
    assert torch.equal(embedding(load("phi3_v", folder)), embedding(tiny("phi3_v")))


def test_weights_in_several_bin_files_load(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    places: dict[str, str] = {}
    for number, part in enumerate((names[:30], names[30:]), start=1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: weights[name] for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert torch.equal(embedding(load("phi3_v", folder)), embedding(tiny("phi3_v")))


@pytest.mark.parametrize("name", ["model.vision_embed_tokens.glb_GN", EMBEDDINGS])
def test_missing_weight_is_refused(folder: Path, name: str) -> None:
    change_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(MmebError, match=name):
        load("phi3_v", folder)


@pytest.mark.parametrize("name", ["model.layers.2.mlp.down_proj.weight", "score.weight", f"{TOWER}.head.weight"])
def test_additional_weight_is_refused(folder: Path, name: str) -> None:
    change_weights(folder, lambda weights: weights.update({name: torch.zeros(2)}))
    with pytest.raises(MmebError, match=name):
        load("phi3_v", folder)


def test_weights_of_another_size_than_the_config_are_refused(folder: Path) -> None:
    change_config(folder, intermediate_size=256)
    with pytest.raises(MmebError, match=r"\(64, 128\).*\(64, 256\)"):
        load("phi3_v", folder)


def test_tower_has_the_official_size_where_the_config_is_silent(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["img_processor"]["clip_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmebError, match=r"encoder\.layers\.10\."):
        load("phi3_v", folder)  # the tiny tower has 3 of CLIP ViT-L's 24 layers


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"model_type": "llava_next"}, "llava_next"),
        ({"embd_layer": {"use_hd_transform": False}}, "embd_layer"),
        ({"rope_scaling": {"type": "yarn"}}, "yarn"),
    ],
)
def test_another_architecture_is_refused(folder: Path, entries: dict[str, Any], message: str) -> None:
    change_config(folder, **entries)
    with pytest.raises(MmebError, match=message):
        load("phi3_v", folder)


def test_long_rope_goes_by_either_of_its_names(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_scaling"]["type"] == "su"
    change_config(folder, rope_scaling=config["rope_scaling"] | {"type": "longrope"})
    assert torch.equal(embedding(load("phi3_v", folder)), embedding(tiny("phi3_v")))


def test_bf16_weights_leave_the_rotary_frequencies_in_float32() -> None:
    module = load("phi3_v", dtype=torch.bfloat16).module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert module.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(module.model.rotary_emb.inv_freq, tiny("phi3_v").module.model.rotary_emb.inv_freq)
