"""An adapter that `peft` trained on the library's class with a head computes the same on ours without one."""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN
from torch import Tensor, nn
from transformers import (
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLForConditionalGeneration,
)

from mmeb.errors import MmebError
from mmeb.models.backbones.base import Backbone
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.backbones.qwen2_vl import Qwen2VLBackbone, Qwen25VLBackbone
from mmeb.models.checkpoints import lora
from mmeb.models.checkpoints.checkpoint import Checkpoint

IDS = torch.tensor([[5, 17, 3, 40, 9]])


def qwen25() -> PreTrainedModel:
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
    vision = {"depth": 2, "hidden_size": 32, "out_hidden_size": 32, "num_heads": 4, "intermediate_size": 64}
    torch.manual_seed(0)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text | heads | rope, vision_config=vision))


Family = tuple[Callable[[], PreTrainedModel], type[Backbone]]
FAMILIES: dict[str, Family] = {
    "qwen2_vl": (
        lambda: Qwen2VLForConditionalGeneration.from_pretrained(GOLDEN / "ckpt/qwen2_vl"),
        Qwen2VLBackbone,
    ),
    "qwen2_5_vl": (qwen25, Qwen25VLBackbone),
    "llava_next": (
        lambda: LlavaNextForConditionalGeneration.from_pretrained(GOLDEN / "ckpt/llava_next"),
        LlavaNextBackbone,
    ),
}

# Today's names in the class with a head → those of older releases, in keys and configurations alike.
OLDER: dict[str, Mapping[str, str]] = {
    "qwen2_vl": {"model.language_model.": "model.", "model.visual.": "visual."},
    "qwen2_5_vl": {"model.language_model.": "model.", "model.visual.": "visual."},
    "llava_next": {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.multi_modal_projector.": "multi_modal_projector.",
        "lm_head": "language_model.lm_head",
    },
}

NAMES = ["q_proj", "down_proj"]
FIRST = "model.language_model.layers.0.self_attn.q_proj"
CONFIGS: dict[str, dict[str, Any]] = {
    "names": {"target_modules": NAMES},
    "full paths": {"target_modules": [FIRST, "model.language_model.layers.1.mlp.down_proj"]},
    "a regular expression": {"target_modules": "model.language_model.layers.[01].(self_attn.[qv]|mlp.up)_proj"},
    "an expression that looks ahead": {"target_modules": "^(?!.*(vis|lm_head)).*(o_proj|gate_proj)$"},
    "all linear layers": {"target_modules": "all-linear"},
    "a rank pattern by name": {"target_modules": NAMES, "rank_pattern": {"down_proj": 8}},
    "a rank pattern by path": {"target_modules": NAMES, "rank_pattern": {FIRST: 2}},
    "an alpha pattern by path": {"target_modules": NAMES, "alpha_pattern": {FIRST: 64}},
    "an alpha pattern by expression": {
        "target_modules": NAMES,
        "alpha_pattern": {"^model.language_model.layers.1.*q_proj": 3},
    },
    "excluded names": {"target_modules": NAMES, "exclude_modules": [FIRST]},
    "an excluded expression": {"target_modules": NAMES, "exclude_modules": "model.language_model.layers.0.*"},
    "a layer": {"target_modules": NAMES, "layers_to_transform": 1},
    "layers of a pattern": {"target_modules": NAMES, "layers_to_transform": [0], "layers_pattern": "layers"},
    "a target that is a head": {"target_modules": ["q_proj", "lm_head"]},
    "a saved head": {"target_modules": NAMES, "modules_to_save": ["lm_head"]},
    "a saved embedding": {"target_modules": NAMES, "modules_to_save": ["embed_tokens"]},
    "a saved norm and head": {"target_modules": NAMES, "modules_to_save": ["model.language_model.norm", "lm_head"]},
    "an embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "tokens": {"target_modules": NAMES, "trainable_token_indices": {"embed_tokens": [3, 9]}},
    "biases of its layers": {"target_modules": NAMES, "bias": "lora_only"},
    "all biases": {"target_modules": NAMES, "bias": "all"},
    "a factor with bias": {"target_modules": ["q_proj", "fc1"], "lora_bias": True},
    "rslora": {"target_modules": NAMES, "use_rslora": True},
    "dora": {"target_modules": NAMES, "use_dora": True},
    "pissa": {"target_modules": NAMES, "init_lora_weights": "pissa"},
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def train(family: str, folder: Path, **config: Any) -> tuple[PeftModel, Any]:
    """An adapter with random weights on the class with a head, saved as its trainer does; and the base without."""
    full = FAMILIES[family][0]().eval()
    base = copy.deepcopy(full.model)
    settings = {"r": 4, "lora_alpha": 16, "init_lora_weights": False, "task_type": "CAUSAL_LM"} | config
    generator = torch.Generator().manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained = get_peft_model(full, LoraConfig(**settings))
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        trained.save_pretrained(folder)
    return trained.eval(), base


def rename(folder: Path, names: Mapping[str, str]) -> None:
    """Write the adapter as a trainer with older names would have."""

    def old(text: str) -> str:
        for today, then in names.items():
            text = text.replace(today, then)
        return text

    path = folder / "adapter_model.safetensors"
    prefix = lora.WRAPPER
    save_file({prefix + old(key.removeprefix(prefix)): each for key, each in load_file(path).items()}, path)
    config = folder / "adapter_config.json"
    config.write_text(old(config.read_text()))


def hidden(language_model: nn.Module) -> Tensor:
    with torch.inference_mode():
        states: Tensor = language_model(input_ids=IDS, use_cache=False).last_hidden_state
        return states


@pytest.mark.parametrize("case", CONFIGS)
def test_what_peft_computes_with_a_head_is_computed_without(family: str, case: str, tmp_path: Path) -> None:
    trained, base = train(family, tmp_path, **CONFIGS[case])
    before = hidden(base.language_model)
    expected = hidden(trained.base_model.model.model.language_model)
    assert (expected - before).abs().max() > 1e-3
    # peft can't merge the first without a bias in the base; the second changes an embedding that is tied to the head.
    weights = None
    if case not in ("a factor with bias", "a target that is a head"):
        weights = trained.merge_and_unload().model.state_dict()

    for names in ({}, OLDER[family]):
        rename(tmp_path, names)
        beside, merged = copy.deepcopy(base), copy.deepcopy(base)
        lora.attach(beside, tmp_path, FAMILIES[family][1].layouts, merge=False)
        lora.attach(merged, tmp_path, FAMILIES[family][1].layouts, merge=True)

        torch.testing.assert_close(hidden(beside.language_model), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(hidden(merged.language_model), expected, rtol=0, atol=1e-4)
        if weights is not None:
            assert merged.state_dict().keys() == weights.keys()
            for name, weight in merged.state_dict().items():
                torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("version", ["today", "older"])
@pytest.mark.parametrize(
    "case",
    [
        "names",
        "a regular expression",
        "a rank pattern by path",
        "an alpha pattern by path",
        "a layer",
        "excluded names",
    ],
)
def test_an_adapter_that_is_saved_again_speaks_of_todays_class(
    family: str, case: str, version: str, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    second.mkdir()
    trained, base = train(family, first, **CONFIGS[case])
    if version == "older":
        rename(first, OLDER[family])
    layouts = FAMILIES[family][1].layouts
    lora.attach(base, first, layouts, merge=False)
    lora.save(base, second, layouts, base="base", base_revision=None)

    again = PeftModel.from_pretrained(FAMILIES[family][0](), str(second)).eval()
    expected = hidden(trained.base_model.model.model.language_model)
    torch.testing.assert_close(hidden(again.base_model.model.model.language_model), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("layer_replication", [[0, 2], [1, 2]]),
        ("alora_invocation_tokens", [1, 2]),
        ("use_qalora", True),
        ("target_parameters", ["experts.weight"]),
        ("megatron_config", {"tensor_model_parallel_size": 1}),
        ("a_setting_of_tomorrow", "on"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_name(setting: str, value: Any, tmp_path: Path) -> None:
    _, base = train("qwen2_vl", tmp_path, target_modules=NAMES)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(MmebError, match=f"sets {setting} in its adapter_config.json"):
        lora.attach(base, tmp_path, Qwen2VLBackbone.layouts, merge=True)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("peft_type", "LOHA", "an adapter of type LOHA: only LoRA and DoRA"),
        ("init_lora_weights", "loftq", "init_lora_weights to 'loftq'"),
        ("modules_to_save", ["score"], "'score' in modules_to_save"),
        ("target_modules", "(", "made for another model than this base"),
        ("target_modules", ["nothing"], "made for another model than this base"),
        ("r", "four", "adapter_config.json|made for another"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(setting: str, value: Any, message: str, tmp_path: Path) -> None:
    _, base = train("qwen2_vl", tmp_path, target_modules=NAMES)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(MmebError, match=message):
        lora.attach(base, tmp_path, Qwen2VLBackbone.layouts, merge=True)


def test_an_adapter_with_a_task_type_takes_its_place_on_phi3_v(tmp_path: Path) -> None:
    """There is no class of the library to compare with: without a task type it is held to the reference elsewhere."""
    plain = GOLDEN / "ckpt/phi3_v_dora"
    fields = json.loads((plain / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(fields | {"task_type": "CAUSAL_LM"}))
    save_file(load_file(plain / "adapter_model.safetensors"), tmp_path / "adapter_model.safetensors")
    states = []
    for folder in (plain, tmp_path):
        backbone = Phi3VBackbone(Checkpoint("phi", "phi", GOLDEN / "ckpt/phi3_v"))
        lora.attach(backbone.module, folder, backbone.layouts, merge=True)
        states.append(backbone.module.state_dict())
    assert all(torch.equal(states[0][name], weight) for name, weight in states[1].items())
