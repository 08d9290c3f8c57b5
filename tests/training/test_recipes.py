"""Recipes: the table, and their way to YAML and back."""

import dataclasses
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.paths import GOLDEN

from mmeb.errors import MmebError
from mmeb.models.loading import load_model
from mmeb.models.registry import ADAPTERS, adapter_class
from mmeb.training.recipe import LoraSettings, Recipe
from mmeb.training.recipe_file import from_mapping, read_recipe, to_mapping, to_yaml, with_setting
from mmeb.training.recipes import RECIPES, find_recipe

CKPT = GOLDEN / "ckpt"
# What the reference tells peft to adapt, in every backbone (VLM2Vec, branch v1, src/arguments.py).
REFERENCE_TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj", "q_proj", "out_proj", "v_proj"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_needs_and_where_its_numbers_come_from(name: str) -> None:
    named = RECIPES[name]
    assert "not" not in named.memory
    assert "not" not in named.time
    assert named.sources
    assert named.sources.keys() <= {field.name for field in dataclasses.fields(Recipe)}
    family = adapter_class(named.recipe.adapter)
    assert family.capabilities.training
    assert family.capabilities.lora or named.recipe.lora is None


def test_every_adapter_has_a_recipe_of_its_name() -> None:
    assert all(RECIPES[name].recipe.adapter == name for name in ADAPTERS)


@pytest.mark.parametrize(
    ("name", "limit", "options"),
    [
        ("phi35v", 50_000, {"num_crops": "4", "max_length": "256"}),
        ("llava-next", 100_000, {"image_resolution": "high"}),
        ("qwen2-vl", 100_000, {"image_resolution": "high", "max_length": "4096"}),
    ],
)
def test_defaults_are_the_papers(name: str, limit: int, options: dict[str, str]) -> None:
    recipe = find_recipe(adapter=name).recipe
    assert recipe.lora is not None
    lora = recipe.lora
    assert (lora.rank, lora.alpha, lora.dropout, lora.dora) == (8, 64, 0.1, True)
    assert (recipe.batch_size, recipe.steps, recipe.warmup_steps) == (1024, 2000, 200)
    assert (recipe.learning_rate, recipe.schedule, recipe.temperature) == (2e-5, "linear", 0.02)
    assert (recipe.split, recipe.limit, recipe.options) == ("original", limit, options)


@pytest.mark.parametrize("name", ["clip", "open_clip", "siglip", "demo"])
def test_smaller_models_train_all_their_weights(name: str) -> None:
    assert find_recipe(adapter=name).recipe.lora is None


@pytest.mark.parametrize(
    ("name", "folder"), [("phi35v", "phi3_v"), ("llava-next", "llava_next"), ("qwen2-vl", "qwen2_vl")]
)
def test_targets_match_what_the_references_list_matches_and_nothing_in_vain(name: str, folder: str) -> None:
    modules = [path for path, _ in load_model(str(CKPT / folder), device="cpu", adapter=name).module.named_modules()]

    def matched(targets: Any) -> set[str]:
        return {path for path in modules if path.rpartition(".")[2] in targets}

    lora = RECIPES[name].recipe.lora
    assert lora is not None
    assert matched(lora.targets) == matched(REFERENCE_TARGETS)
    assert all(matched([target]) for target in lora.targets)
    in_tower = any("vision" in path for path in matched(lora.targets))
    assert in_tower == (name != "qwen2-vl")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_yaml_as_it_was(name: str, tmp_path: Path) -> None:
    named = RECIPES[name]
    text = to_yaml(named.recipe, named.head, named.sources)
    (tmp_path / "recipe.yaml").write_text(text)
    assert read_recipe(tmp_path / "recipe.yaml") == named.recipe
    assert named.memory.splitlines()[0] in text
    for source in named.sources.values():
        assert all(f"# {line}" in text for line in source.splitlines())


def test_what_yaml_leaves_as_text_is_read_as_what_it_means() -> None:
    recipe = from_mapping({"adapter": "demo", "learning_rate": "2e-5", "subsets": "CIRR, VOC2007", "options": {"a": 4}})
    assert recipe.learning_rate == 2e-5
    assert recipe.subsets == ("CIRR", "VOC2007")
    assert recipe.options == {"a": "4"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"adapter": "demo", "learning_rat": 1}, "no setting 'learning_rat': did you mean learning_rate?"),
        ({"adapter": "demo", "lora": {"targets": ["a"], "rnk": 1}}, "no setting 'lora.rnk': did you mean lora.rank?"),
        ({"adapter": "demo", "steps": "many"}, "steps is to be a whole number, not 'many'"),
        ({"adapter": "demo", "steps": 1.5}, "steps is to be a whole number, not 1.5"),
        ({"adapter": "demo", "symmetric": "yes"}, "symmetric is to be true or false"),
        ({"adapter": "demo", "batches": "random"}, "batches is to be one of homogeneous, interleaved, mixed"),
        ({"adapter": "demo", "weights": [1]}, "weights is to be a mapping"),
        ({"adapter": "demo", "subsets": [1]}, "subsets is to be a list of names"),
        ({"steps": 3}, "lacks the setting adapter"),
        (["adapter"], "is to be a mapping"),
        ({"adapter": "demo", "batch_size": 1}, "batch size is to be 2 or more"),
        ({"adapter": "demo", "steps": 0}, "steps is to be above 0"),
        ({"adapter": "demo", "temperature": 0}, "temperature is to be above 0"),
        ({"adapter": "demo", "learning_rate": ".nan"}, "learning_rate is to be a number"),
        ({"adapter": "demo", "limit": 0}, "limit is to be 1 or more"),
        ({"adapter": "demo", "batches": "interleaved", "batch_size": 100, "interleave": 64}, "is to be a multiple"),
        ({"adapter": "demo", "lora": {"targets": []}}, "A LoRA needs targets"),
        ({"adapter": "demo", "lora": {"targets": "a", "rank": 0}}, "rank is to be 1 or more"),
        ({"adapter": "demo", "lora": {"targets": "a", "dropout": 1}}, "dropout is to be from 0 to below 1"),
    ],
)
def test_a_wrong_recipe_is_said_plainly(content: Any, message: str) -> None:
    with pytest.raises(MmebError, match=re.escape(message)):
        from_mapping(content)


def test_a_file_that_is_missing_or_no_yaml_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="There is no file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(MmebError, match="can't be read as YAML"):
        read_recipe(tmp_path / "broken.yaml")


def test_any_setting_can_be_set_by_its_name() -> None:
    recipe = RECIPES["phi35v"].recipe
    changed = with_setting(with_setting(with_setting(recipe, "lora.rank=16"), "options.num_crops=8"), "symmetric=true")
    assert changed.lora == replace(recipe.lora or LoraSettings(("a",)), rank=16)
    assert changed.options["num_crops"] == "8"
    assert changed.symmetric
    assert with_setting(recipe, "lora=null").lora is None
    assert with_setting(recipe, "weights.CIRR=0.5").weights == {"CIRR": 0.5}
    assert to_mapping(with_setting(recipe, "seed=42")) == to_mapping(recipe)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("stepps=3", "did you mean steps?"),
        ("steps", "written KEY=VALUE"),
        ("lora.rank=16", "has no lora"),
        ("steps=[", "can't be read"),
    ],
)
def test_a_wrong_setting_is_said_plainly(pair: str, message: str) -> None:
    with pytest.raises(MmebError, match=re.escape(message)):
        with_setting(RECIPES["demo"].recipe, pair)


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(MmebError, match="did you mean phi35v-24gb"):
        find_recipe("phi35v-24g")
    with pytest.raises(MmebError, match="is for the adapter phi35v, not clip"):
        find_recipe("phi35v-24gb", "clip")
    with pytest.raises(MmebError, match="--adapter"):
        find_recipe()
