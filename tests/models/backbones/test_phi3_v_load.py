"""Which Phi-3.5-V checkpoints load, and what is said of those that don't."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN
from torch import Tensor

from mmeb.errors import MmebError
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.checkpoints.checkpoint import Checkpoint

OFFICIAL = GOLDEN / "ckpt/phi3_v"
EMBEDDINGS, ALIAS = "model.embed_tokens.weight", "model.vision_embed_tokens.wte.weight"
TOWER = "model.vision_embed_tokens.img_processor.vision_model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(OFFICIAL, tmp_path / "ckpt"))


def load(folder: Path, **kwargs: Any) -> Phi3VBackbone:
    return Phi3VBackbone(Checkpoint("copy", "copy", folder), **kwargs)


def change_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def change_config(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | entries))


def embedding(backbone: Phi3VBackbone) -> Tensor:
    batch = backbone.collate([backbone.encode("A red dog.", None)])
    with torch.inference_mode():
        return backbone.forward(batch.inputs)


def test_the_language_model_head_is_not_loaded() -> None:
    assert not [name for name, _ in load(OFFICIAL).module.named_parameters() if "lm_head" in name]


def test_official_key_names_are_the_module_names() -> None:
    official = set(json.loads((OFFICIAL / "keys.json").read_text())["keys"])
    assert set(load(OFFICIAL).module.state_dict()) == official - {"lm_head.weight"}


@pytest.mark.parametrize("kept", [(EMBEDDINGS, ALIAS), (ALIAS,)])
def test_embeddings_may_stand_under_either_name_or_both(folder: Path, kept: tuple[str, ...]) -> None:
    def rename(weights: dict[str, Tensor]) -> None:
        table = weights.pop(EMBEDDINGS)
        weights.update({name: table.clone() for name in kept})

    change_weights(folder, rename)
    assert torch.equal(embedding(load(folder)), embedding(load(OFFICIAL)))


def test_position_buffers_of_the_tower_are_no_error(folder: Path) -> None:
    positions = {f"{TOWER}.embeddings.position_ids": torch.arange(577)[None]}
    change_weights(folder, lambda weights: weights.update(positions))
    assert torch.equal(embedding(load(folder)), embedding(load(OFFICIAL)))


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
    assert torch.equal(embedding(load(folder)), embedding(load(OFFICIAL)))


@pytest.mark.parametrize("name", ["model.norm.weight", "model.vision_embed_tokens.glb_GN", EMBEDDINGS])
def test_missing_weight_is_refused(folder: Path, name: str) -> None:
    change_weights(folder, lambda weights: weights.pop(name))
    with pytest.raises(MmebError, match=name):
        load(folder)


@pytest.mark.parametrize("name", ["model.layers.2.mlp.down_proj.weight", "score.weight", f"{TOWER}.head.weight"])
def test_additional_weight_is_refused(folder: Path, name: str) -> None:
    change_weights(folder, lambda weights: weights.update({name: torch.zeros(2)}))
    with pytest.raises(MmebError, match=name):
        load(folder)


def test_weights_of_another_size_than_the_config_are_refused(folder: Path) -> None:
    change_config(folder, intermediate_size=256)
    with pytest.raises(MmebError, match=r"\(64, 128\).*\(64, 256\)"):
        load(folder)


def test_tower_has_the_official_size_where_the_config_is_silent(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["img_processor"]["clip_config"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MmebError, match=r"encoder\.layers\.10\."):
        load(folder)  # the tiny tower has 3 of CLIP ViT-L's 24 layers


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
        load(folder)


def test_long_rope_goes_by_either_of_its_names(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["rope_scaling"]["type"] == "su"
    change_config(folder, rope_scaling=config["rope_scaling"] | {"type": "longrope"})
    assert torch.equal(embedding(load(folder)), embedding(load(OFFICIAL)))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(MmebError, match=r"config\.json|no weights|tokenizer\.json"):
        load(folder)


def test_cut_off_weights_are_refused(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MmebError, match="download"):
        load(folder)


def test_tokenizer_without_pad_token_serves(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    (folder / "special_tokens_map.json").unlink()
    backbone = load(folder)
    rows = [backbone.encode(text, None) for text in ("A red dog.", "A red dog runs near the old house.")]
    batch = backbone.collate(rows)
    with torch.inference_mode():
        short = backbone.forward(batch.inputs)[:1, : len(rows[0].ids)]
    assert (short - embedding(load(OFFICIAL))).abs().max() < 1e-5


def test_bf16_weights_leave_the_rotary_frequencies_in_float32() -> None:
    module = load(OFFICIAL, dtype=torch.bfloat16).module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert module.model.rotary_emb.inv_freq.dtype == torch.float32
    assert torch.equal(module.model.rotary_emb.inv_freq, load(OFFICIAL).module.model.rotary_emb.inv_freq)


def test_weights_may_be_spread_over_the_devices_there_are() -> None:
    assert torch.equal(embedding(load(OFFICIAL, device="auto")), embedding(load(OFFICIAL)))
