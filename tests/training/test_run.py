"""From a recipe to a folder that loads by itself."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import ModelCard
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from support.paths import GOLDEN

import mmeb
from mmeb.errors import MmebError
from mmeb.evaluation.probes import probes
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model
from mmeb.training.card import model_card
from mmeb.training.recipe import LoraSettings, Recipe, RunSettings, find_recipe
from mmeb.training.run import prepare, run
from mmeb.training.start import start_model

CKPT = GOLDEN / "ckpt"
ITEMS = [probes()[name] for name in ("text circle", "image rgb", "image palette", "both")]
FOLDERS = {"phi35v": "phi3_v", "qwen2-vl": "qwen2_vl", "llava-next": "llava_next", "clip": "clip"}
LORA = LoraSettings(("q_proj", "v_proj"), rank=2, alpha=8)


def recipe_of(adapter: str, **changes: object) -> Recipe:
    """The adapter's own recipe on a tiny model and few rows."""
    recipe = find_recipe(adapter=adapter).recipe
    options = {name: value for name, value in recipe.options.items() if name != "max_length"}
    if "image_resolution" in options:
        options["image_resolution"] = "low"
    small = replace(
        recipe,
        model=str(CKPT / FOLDERS[adapter]) if adapter in FOLDERS else None,
        options=options,
        subsets=("VOC2007", "CIRR"),
        limit=8,
        batch_size=4,
        steps=2,
        warmup_steps=0,
        learning_rate=1e-3,
    )
    return replace(small, **changes)  # type: ignore[arg-type]


def settings(output: Path, **changes: object) -> RunSettings:
    return replace(RunSettings(output, save_every=None, workers=0, progress=False), **changes)  # type: ignore[arg-type]


def embed(model: EmbeddingModel) -> NDArray[np.float32]:
    return mmeb.encode(model, ITEMS, batch_size=1, workers=0)


def weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    """The weights that a run starts from."""
    return {name: each.clone() for name, each in start_model(recipe, device="cpu")[0].module.state_dict().items()}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-VL under a LoRA, two steps, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("runs") / "qwen"
    recipe = recipe_of("qwen2-vl")
    changes = {"save_every": 1, "eval_every": 2, "eval_tasks": "VOC2007", "eval_limit": 4}
    run(recipe, settings(folder, **changes), data="demo", command="mmeb train --adapter qwen2-vl")
    return folder


@pytest.mark.parametrize("adapter", ["phi35v", "clip", "demo"])
def test_its_folder_is_scored_without_further_options(adapter: str, tmp_path: Path) -> None:
    recipe = recipe_of(adapter)
    run(recipe, settings(tmp_path / "model"), data="demo")
    model = load_model(str(tmp_path / "model"), device="cpu")
    assert model.adapter == adapter
    shown = {name: str(value) for name, value in vars(model.options).items()}
    assert shown | dict(recipe.options) == shown
    result = mmeb.evaluate(model, "VOC2007", "demo", tmp_path / "run", limit=2, workers=0)
    assert result.tasks["VOC2007"].num_pred == 2


def test_a_run_moves_the_model_and_the_folder_has_what_it_moved_to(tmp_path: Path) -> None:
    recipe = recipe_of("clip", steps=1)
    before = weights(recipe)
    run(recipe, settings(tmp_path / "model"), data="demo")
    after = load_file(tmp_path / "model/model.safetensors")
    assert after.keys() == before.keys()
    assert sum(not torch.equal(after[name], before[name]) for name in after) > len(after) / 2


def test_a_checkpoint_is_a_model_as_well(trained: Path) -> None:
    first, last = load_model(str(trained / "checkpoint-1")), load_model(str(trained / "checkpoint-2"))
    np.testing.assert_allclose(embed(last), embed(load_model(str(trained))), rtol=0, atol=1e-6)
    assert np.abs(embed(first) - embed(last)).max() > 1e-4


def test_the_manifest_says_what_the_model_was_made_of(trained: Path) -> None:
    manifest = json.loads((trained / "mmeb.json").read_text())
    assert manifest["adapter"] == "qwen2-vl"
    assert manifest["options"]["image_resolution"] == "low"
    assert manifest["base"] == str(CKPT / "qwen2_vl")
    assert manifest["base_revision"].startswith("sha256:")
    assert manifest["recipe"]["steps"] == 2
    assert [(part["subset"], part["pairs"], part["kind"]) for part in manifest["data"]] == [
        ("VOC2007", 8, "demo"),
        ("CIRR", 8, "demo"),
    ]
    assert all(part["fingerprint"] for part in manifest["data"])
    assert manifest["libraries"]["torch"]
    assert 0 < manifest["trained_parameters"] < manifest["parameters"]


def test_a_learned_temperature_is_written_down(tmp_path: Path) -> None:
    recipe = recipe_of("clip", learn_temperature=True, temperature=0.07, learning_rate=0.01, steps=3)
    run(recipe, settings(tmp_path, log_every=1), data="demo")
    found = json.loads((tmp_path / "mmeb.json").read_text())["temperature"]
    assert found != pytest.approx(0.07)
    assert f"learned temperature {found}" in (tmp_path / "README.md").read_text()


def test_the_card_is_the_hubs_and_has_command_data_scores_and_recipe(trained: Path) -> None:
    card = ModelCard.load(trained / "README.md")
    assert "mmeb" in card.data.tags
    assert card.data.library_name == "peft"
    text = str(card)
    assert "mmeb train --adapter qwen2-vl" in text
    assert "mmeb run --model ./qwen" in text
    assert "| VOC2007  |       8 |" in text
    score = json.loads((trained / "log.jsonl").read_text().splitlines()[-1])["eval/VOC2007"]
    assert f"{100 * score:.1f}" in text.partition("## Scores")[2]
    assert "learning_rate: 0.001" in text
    assert str(CKPT) not in text.partition("## Recipe")[0]


def test_the_card_names_the_hubs_base_and_data(trained: Path) -> None:
    manifest = json.loads((trained / "mmeb.json").read_text())
    manifest |= {"base": "Qwen/Qwen2-VL-2B-Instruct", "base_revision": "abc"}
    manifest["data"][0] |= {"kind": "hub", "repository": "TIGER-Lab/MMEB-train", "revision": "76dd0a4"}
    data = vars(ModelCard(model_card(manifest, settings(trained), [])).data)
    assert data["base_model"] == "Qwen/Qwen2-VL-2B-Instruct"
    assert data["base_model_relation"] == "adapter"
    assert data["datasets"] == ["TIGER-Lab/MMEB-train"]


def test_it_says_what_it_would_train_without_weights(tmp_path: Path) -> None:
    for path in (CKPT / "phi3_v").iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    torch.save({}, tmp_path / "pytorch_model.bin")  # a folder has weights, here none that could be loaded
    text = str(prepare(recipe_of("phi35v", model=str(tmp_path)), data="demo", weights=False))
    assert "model.layers.*.self_attn.qkv_proj x 2" in text
    assert "img_processor.vision_model.encoder.layers.*.self_attn.out_proj x 3" in text
    assert "parameters are trained (" in text
    assert "2 subsets, 16 pairs" in text
    assert "2 of 4 pairs, 0.50 epochs" in text


def test_a_lora_leaves_its_base_to_the_bit() -> None:
    recipe = recipe_of("phi35v")
    model, _, trainable = start_model(recipe, device="cpu")
    base = load_model(str(CKPT / "phi3_v"), device="cpu").module.state_dict()
    found = {name.replace(".base_layer", ""): each for name, each in model.module.named_parameters()}
    assert all(torch.equal(found[name], base[name]) for name in base if name in found)
    assert {name for name, each in found.items() if each.requires_grad} == found.keys() - base.keys()
    assert trainable.trained == sum(each.numel() for name, each in found.items() if name not in base)
    np.testing.assert_allclose(embed(model), embed(load_model(str(CKPT / "phi3_v"), device="cpu")), atol=1e-6)


def test_a_lora_over_bfloat16_is_float32_itself() -> None:
    model, _, _ = start_model(recipe_of("phi35v", dtype="bfloat16"), device="cpu")
    kinds = {(".lora_" in name): each.dtype for name, each in model.module.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    assert np.isfinite(embed(model)).all()


def test_where_all_weights_are_trained_they_are_float32() -> None:
    model, _, _ = start_model(recipe_of("clip", dtype="bfloat16"), device="cpu")
    assert model.dtype == torch.float32


@pytest.mark.parametrize(("adapter", "lora"), [("clip", False), ("phi35v", False), ("phi35v", True), ("demo", False)])
def test_a_frozen_tower_stays_as_it_was_to_the_bit(adapter: str, lora: bool, tmp_path: Path) -> None:
    recipe = recipe_of(adapter, freeze_tower=True, weight_decay=0.1, gradient_checkpointing=False)
    recipe = replace(recipe, lora=recipe.lora if lora else None)
    model, _, _ = start_model(recipe, device="cpu")
    if lora:
        assert not any("img_processor" in name for name, _ in model.module.named_parameters() if ".lora_" in name)
        run(recipe, settings(tmp_path / "model"), data="demo")
        assert not any("img_processor" in name for name in load_file(tmp_path / "model/adapter_model.safetensors"))
        return
    before = weights(recipe)
    run(recipe, settings(tmp_path / "model"), data="demo")
    after = load_file(tmp_path / "model/model.safetensors")
    tower = {name for name in before if name.startswith(model.capabilities.image_tower)}
    assert tower
    assert all(torch.equal(after[name], before[name].to(after[name].dtype)) for name in tower)
    assert any(not torch.equal(after[name], before[name].to(after[name].dtype)) for name in before.keys() - tower)


def test_a_run_goes_on_from_an_adapter(trained: Path, tmp_path: Path) -> None:
    recipe = recipe_of("qwen2-vl", model=str(trained))
    model, followed, _ = start_model(recipe, device="cpu")
    np.testing.assert_allclose(embed(model), embed(load_model(str(trained))), rtol=0, atol=1e-6)
    assert followed.lora == LoraSettings(tuple(sorted(recipe.lora.targets if recipe.lora else ())))
    run(recipe, settings(tmp_path / "model"), data="demo")
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (trained, tmp_path / "model"))
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    config = json.loads((tmp_path / "model/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(CKPT / "qwen2_vl")


def test_an_adapter_keeps_its_shape(trained: Path) -> None:
    other = replace(find_recipe(adapter="qwen2-vl").recipe.lora or LORA, rank=16)
    with pytest.raises(MmebError, match="is an adapter of rank 8"):
        start_model(recipe_of("qwen2-vl", model=str(trained), lora=other), device="cpu")


def test_all_weights_can_be_trained_from_an_adapter(trained: Path, tmp_path: Path) -> None:
    recipe = recipe_of("qwen2-vl", model=str(trained), lora=None, learning_rate=1e-12)
    run(recipe, settings(tmp_path / "model"), data="demo")
    assert not (tmp_path / "model/adapter_config.json").exists()
    merged = load_model(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(embed(merged), embed(load_model(str(trained))), rtol=0, atol=1e-5)


def test_a_new_adapter_follows_from_the_seed() -> None:
    first, same, other = (weights(recipe_of("qwen2-vl", seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("adapter", "layer"), [("phi35v", "Phi3MLP"), ("phi35v", "CLIPMLP"), ("llava-next", "CLIPMLP")]
)
def test_gradient_checkpointing_computes_layers_again_and_the_same_gradients(adapter: str, layer: str) -> None:
    item = probes()["both"]
    gradients, calls = [], []
    for checkpointing in (False, True):
        recipe = recipe_of(adapter, gradient_checkpointing=checkpointing)
        recipe = replace(recipe, lora=replace(recipe.lora or LORA, dropout=0.0))
        model, _, _ = start_model(recipe, device="cpu")
        count: Counter[str] = Counter()
        for module in model.module.modules():
            module.register_forward_pre_hook(lambda module, _, count=count: count.update([type(module).__name__]))
        model.module.train()
        torch.autograd.backward((model.embed(model.preprocess([item])) @ torch.linspace(-1, 1, model.dim)).sum())
        found = {name: each.grad for name, each in model.module.named_parameters() if each.grad is not None}
        gradients.append(found)
        calls.append(count[layer])
    assert calls[1] > calls[0] > 0
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("support.hash_model:HashModel", model=str(CKPT / "clip")), "can't be trained"),
        (recipe_of("clip", lora=LORA), "clip takes no LoRA"),
        (recipe_of("clip", model=None), "needs a model to start from"),
        (recipe_of("demo", gradient_checkpointing=True), "no gradient checkpointing"),
        (
            recipe_of("qwen2-vl", lora=replace(LORA, targets=("q_porj",))),
            "'q_porj' matches no module: near it are q_proj",
        ),
        (recipe_of("qwen2-vl", lora=replace(LORA, targets=("self_attn",))), "can't be put on these targets"),
        (
            recipe_of("llava-next", lora=replace(LORA, targets=("out_proj",)), freeze_tower=True),
            "can't be put on these targets",
        ),
    ],
)
def test_a_model_that_cannot_be_trained_so_is_said_plainly(recipe: Recipe, message: str) -> None:
    with pytest.raises(MmebError, match=message):
        start_model(recipe, device="cpu")


def test_batch_normalisation_is_refused(tmp_path: Path) -> None:
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"model_cfg": {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": {}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    module = open_clip.create_model(f"local-dir:{tmp_path}", load_weights=False)
    save_file(module.state_dict(), tmp_path / "open_clip_model.safetensors")
    with pytest.raises(MmebError, match="batch normalisation"):
        start_model(Recipe("open_clip", model=str(tmp_path)), device="cpu")


def test_a_folder_with_a_model_is_refused_before_anything_is_loaded(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(MmebError, match="another --output"):
        run(Recipe("clip", model="no/such"), settings(tmp_path), data="nowhere")


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        (recipe_of("demo", batch_size=16), {}, "less than a batch of 16"),
        (recipe_of("demo", weights={"NONE": 2}), {}, "no subset 'NONE'"),
        (recipe_of("demo"), {"eval_every": 2, "eval_tasks": "VOC2077"}, "did you mean VOC2007"),
        (recipe_of("demo"), {"eval_every": 2, "eval_data": "nowhere"}, "nowhere"),
    ],
)
def test_what_would_fail_in_the_middle_of_a_run_is_said_before_it(
    recipe: Recipe, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(MmebError, match=message):
        run(recipe, settings(tmp_path / "model", **changes), data="demo")
    assert not (tmp_path / "model").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(MmebError, match="There is no cuda here"):
        start_model(Recipe("demo"), device="cuda")
