"""Adapters as the reference and others saved them, on today's modules."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.adapters.vlm2vec import Qwen2VLModel
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.backbones.qwen2_vl import Qwen2VLBackbone
from mmeb.models.checkpoints import lora
from mmeb.models.checkpoints.checkpoint import Checkpoint

QWEN = Checkpoint("qwen", "qwen", GOLDEN / "ckpt/qwen2_vl")
LLAVA = Checkpoint("llava", "llava", GOLDEN / "ckpt/llava_next")
DORA = GOLDEN / "ckpt/qwen2_vl_dora"

# Today's module names → those of transformers 4, of its later releases, and of a model trained without its head.
QWEN_NAMES = {
    "4.46": {"language_model.": "model."},
    "4.52": {"language_model.": "model.language_model."},
    "headless": {},
}
LLAVA_NAMES = {
    "4.46": {"language_model.": "language_model.model.", "vision_tower.": "vision_tower.vision_model."},
    "4.52": {"language_model.": "model.language_model.", "vision_tower.": "model.vision_tower.vision_model."},
    "headless": {},
}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DORA, tmp_path / "adapter"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "adapter_model.bin", weights_only=True))


@pytest.mark.parametrize(("option", "name"), [("merge", "merged"), ("keep", "unmerged")])
def test_published_form_of_an_adapter_gives_the_reference_embeddings(option: str, name: str) -> None:
    golden = np.load(GOLDEN / "qwen2_vl_dora.npz")
    rows = json.loads((GOLDEN / "qwen2_vl_dora.json").read_text())["rows"]
    items = [Item(text, image=GOLDEN / "data/images" / path if path else None) for text, path in rows]
    model = Qwen2VLModel.load(
        Checkpoint("dora", "dora", DORA, base=QWEN),
        device=torch.device("cpu"),
        dtype=torch.float32,
        options={"image_resolution": "low", "lora": option},
    )
    for number, item in enumerate(items):
        with torch.inference_mode():
            vector = model.embed(model.preprocess([item]))[0].numpy()
        np.testing.assert_allclose(vector, golden[f"{name}/{number}"], rtol=0, atol=1e-5)
        assert np.abs(vector - golden[f"base/{number}"]).max() > 1e-2


def test_merged_module_has_the_weights_of_the_base_and_no_others() -> None:
    backbone = Qwen2VLBackbone(QWEN)
    before = set(backbone.module.state_dict())
    lora.attach(backbone.module, DORA, Qwen2VLBackbone.layouts, merge=True)
    assert set(backbone.module.state_dict()) == before


@pytest.mark.parametrize("version", QWEN_NAMES)
@pytest.mark.parametrize("backbone_name", ["qwen2_vl", "llava_next"])
def test_module_names_of_every_library_version_find_their_place(
    backbone_name: str, version: str, tmp_path: Path
) -> None:
    qwen = backbone_name == "qwen2_vl"
    backbone_class, checkpoint = (Qwen2VLBackbone, QWEN) if qwen else (LlavaNextBackbone, LLAVA)
    names = QWEN_NAMES if qwen else LLAVA_NAMES
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=True, init_lora_weights=False)
    trained = get_peft_model(backbone_class(checkpoint).module, config)
    trained.save_pretrained(tmp_path)
    saved = {}
    for key, tensor in load_file(tmp_path / "adapter_model.safetensors").items():
        name = key.removeprefix(lora.WRAPPER)
        for today, then in names[version].items():
            if name.startswith(today):
                name = then + name.removeprefix(today)
                break
        saved[lora.WRAPPER + name] = tensor
    save_file(saved, tmp_path / "adapter_model.safetensors")

    backbone = backbone_class(checkpoint)
    lora.attach(backbone.module, tmp_path, backbone_class.layouts, merge=False)
    expected = {name.removeprefix(lora.WRAPPER): value for name, value in trained.named_parameters()}
    found = dict(backbone.module.named_parameters())
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=0)


def test_target_names_that_match_nothing_are_fine(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["target_modules"].append("no_such_module")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)


def test_key_that_finds_no_module_is_an_error(adapter: Path) -> None:
    extra = weights(adapter) | {"base_model.model.model.layers.9.mlp.down_proj.lora_A.weight": torch.zeros(4, 128)}
    torch.save(extra, adapter / "adapter_model.bin")
    with pytest.raises(MmebError, match=r"1 of its 31 weights find no module there, such as .*layers\.9"):
        lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)


def test_targeted_module_without_key_is_an_error(adapter: Path) -> None:
    saved = weights(adapter)
    del saved["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"]
    torch.save(saved, adapter / "adapter_model.bin")
    with pytest.raises(MmebError, match=r"1 of 30 weights are not in it, such as .*layers\.1\.mlp\.down_proj"):
        lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)


def test_adapter_for_a_base_of_another_size_is_refused(adapter: Path) -> None:
    saved = {
        key: torch.zeros(4, 96) if key.endswith("lora_A.weight") else value for key, value in weights(adapter).items()
    }
    torch.save(saved, adapter / "adapter_model.bin")
    with pytest.raises(MmebError, match=r"is \(4, 96\) and should be"):
        lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)


def test_adapter_for_another_architecture_is_refused() -> None:
    with pytest.raises(MmebError, match="does not fit its base"):
        lora.attach(LlavaNextBackbone(LLAVA).module, GOLDEN / "ckpt/phi3_v_dora", LlavaNextBackbone.layouts, merge=True)


def test_adapter_without_weights_is_an_error(adapter: Path) -> None:
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(MmebError, match="has no weights"):
        lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)


def test_pickled_code_is_not_run(adapter: Path) -> None:
    torch.save({"base_model.model.x": Path("/")}, adapter / "adapter_model.bin")
    with pytest.raises(MmebError, match="tensors"):
        lora.attach(Qwen2VLBackbone(QWEN).module, adapter, Qwen2VLBackbone.layouts, merge=True)
