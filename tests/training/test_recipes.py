"""Recipes: the files, what stands in them, and how their settings are changed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.paths import GOLDEN, ROOT
from tabulate import tabulate

from mmeb.errors import MmebError
from mmeb.models.loading import load_model
from mmeb.models.registry import ADAPTERS, adapter_class
from mmeb.training.recipe import (
    LoraSettings,
    NamedRecipe,
    Recipe,
    changed,
    find_recipe,
    from_mapping,
    read_settings,
    recipe_names,
    to_mapping,
)

CKPT = GOLDEN / "ckpt"
NAMES = recipe_names()
# What the reference tells peft to adapt, in every backbone (VLM2Vec, branch v1, src/arguments.py).
REFERENCE_TARGETS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj", "q_proj", "out_proj", "v_proj"]


def header(named: NamedRecipe) -> dict[str, str]:
    """What a recipe's header says it trains, and what memory and time that needs."""
    text = " ".join(line.removeprefix("#").strip() for line in named.text.partition("\n\n")[0].splitlines())
    found = re.search(r"Trains: (?P<trains>.*?) Memory: (?P<memory>.*?) Time: (?P<time>.*?)  Memory and time", text)
    assert found is not None, named.name
    return found.groupdict()


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_its_command_what_it_needs_and_where_its_numbers_come_from(name: str) -> None:
    named = find_recipe(name)
    command = f"--adapter {name}" if named.recipe.adapter == name else f"--recipe {name}"
    assert f"#     mmeb train {command}" in named.text
    assert all(header(named).values())
    comments = re.findall(r"\n\n(?:# .*\n)+(?=\w+:)", named.text)
    assert len(comments) >= 2
    family = adapter_class(named.recipe.adapter)
    assert family.capabilities.training
    assert family.capabilities.lora or named.recipe.lora is None


def test_the_table_in_the_docs_is_that_of_the_files() -> None:
    rows = []
    for named in map(find_recipe, NAMES):
        needs = {label: text.partition(" (")[0] if label != "trains" else text for label, text in header(named).items()}
        size = f"{named.recipe.batch_size} x {named.recipe.steps}"
        rows.append((f"`{named.name}`", needs["trains"], size, needs["memory"], needs["time"]))
    table = tabulate(rows, headers=("recipe", "trains", "pairs x steps", "memory", "time"), tablefmt="github")
    assert table in (ROOT / "docs/training.md").read_text(encoding="utf-8"), f"The table should be:\n{table}"


def test_every_adapter_has_a_recipe_of_its_name() -> None:
    assert all(find_recipe(name).recipe.adapter == name for name in ADAPTERS)


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

    lora = find_recipe(name).recipe.lora
    assert lora is not None
    assert matched(lora.targets) == matched(REFERENCE_TARGETS)
    assert all(matched([target]) for target in lora.targets)
    in_tower = any("vision" in path for path in matched(lora.targets))
    assert in_tower == (name != "qwen2-vl")


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_that_is_shown_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    named = find_recipe(name)
    shown = named.show(named.recipe)
    assert shown.startswith(named.text)
    (tmp_path / "recipe.yaml").write_text(shown)
    again = find_recipe(tmp_path / "recipe.yaml")
    assert again.recipe == named.recipe
    assert again.show(again.recipe) == shown


def test_what_is_changed_is_shown_without_the_source_of_what_it_was() -> None:
    named = find_recipe("llava-next")
    shown = named.show(replace(named.recipe, batch_size=64, symmetric=True))
    assert "the model card says 2048" in named.text
    assert "the model card says 2048" not in shown
    assert {"batch_size: 64", "symmetric: true"} <= set(shown.splitlines())


@pytest.mark.parametrize("text", ["{adapter: demo, steps: 5}", '"adapter": demo\n"steps": 5\n'])
def test_what_is_changed_is_shown_however_the_file_is_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    named = find_recipe(tmp_path / "recipe.yaml")
    recipe = replace(named.recipe, steps=7)
    (tmp_path / "again.yaml").write_text(named.show(recipe))
    assert find_recipe(tmp_path / "again.yaml").recipe == recipe


def test_a_setting_under_both_its_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("adapter: demo\nsub_batch_size: 4\nmicro_batch_size: 8\n")
    with pytest.raises(MmebError, match="sub_batch_size is the former name of micro_batch_size"):
        find_recipe(tmp_path / "recipe.yaml")


def test_settings_under_their_former_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("adapter: clip\nsub_batch_size: 4\n")
    named = find_recipe(tmp_path / "recipe.yaml")
    assert named.recipe == Recipe("clip", micro_batch_size=4)
    assert "\nmicro_batch_size: 4\n" in named.show(named.recipe)
    assert changed(named.recipe, {"sub_batch_size": 8}).micro_batch_size == 8


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
        ({"adapter": "demo", "steps": "many"}, "steps must be an integer, not 'many'"),
        ({"adapter": "demo", "steps": 1.5}, "steps must be an integer, not 1.5"),
        ({"adapter": "demo", "symmetric": "yes"}, "symmetric must be true or false"),
        ({"adapter": "demo", "batches": "random"}, "batches must be 'homogeneous', 'interleaved' or 'mixed'"),
        ({"adapter": "demo", "weights": [1]}, "weights must be a mapping"),
        ({"adapter": "demo", "subsets": [1]}, "subsets.0 must be text"),
        ({"steps": 3}, "lacks the setting adapter"),
        (["adapter"], "must be a mapping"),
        ({"adapter": "demo", "batch_size": 1}, "batch size must be 2 or more"),
        ({"adapter": "demo", "steps": 0}, "steps must be above 0"),
        ({"adapter": "demo", "temperature": 0}, "temperature must be above 0"),
        ({"adapter": "demo", "learning_rate": ".nan"}, "learning_rate must be a number, not '.nan'"),
        ({"adapter": "demo", "learning_rate": float("nan")}, "learning rate must be above 0, not nan"),
        ({"adapter": "demo", "limit": 0}, "limit must be 1 or more"),
        ({"adapter": "demo", "batches": "interleaved", "batch_size": 100, "interleave": 64}, "must be a multiple"),
        ({"adapter": "demo", "lora": {"targets": []}}, "A LoRA needs targets"),
        ({"adapter": "demo", "lora": {"targets": ""}}, "A LoRA needs targets"),
        ({"adapter": "demo", "lora": {"targets": "a", "rank": 0}}, "rank must be 1 or more"),
        ({"adapter": "demo", "lora": {"targets": "a", "dropout": 1}}, "dropout must be from 0 to below 1"),
    ],
)
def test_a_wrong_recipe_is_said_plainly(content: Any, message: str) -> None:
    with pytest.raises(MmebError, match=re.escape(message)):
        from_mapping(content)


def test_a_file_that_is_missing_or_no_yaml_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="There is no file"):
        find_recipe(tmp_path / "none.yaml")
    with pytest.raises(MmebError, match="There is no file"):
        find_recipe("none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(MmebError, match="can't be read as YAML"):
        find_recipe(tmp_path / "broken.yaml")


def test_any_setting_can_be_set_by_its_name() -> None:
    recipe = find_recipe("phi35v").recipe

    def with_settings(*pairs: str) -> Recipe:
        return changed(recipe, read_settings(pairs))

    result = with_settings("lora.rank=16", "options.num_crops=8", "symmetric=true")
    assert result.lora == replace(recipe.lora or LoraSettings(("a",)), rank=16)
    assert result.options["num_crops"] == "8"
    assert result.symmetric
    assert with_settings("lora=null").lora is None
    assert with_settings("weights.CIRR=0.5").weights == {"CIRR": 0.5}
    assert to_mapping(with_settings("seed=42")) == to_mapping(recipe)


def test_a_lora_is_added_by_its_targets() -> None:
    recipe = changed(Recipe("qwen2-vl", model="x"), read_settings(["lora.rank=16", "lora.targets=q_proj,v_proj"]))
    assert recipe.lora == LoraSettings(("q_proj", "v_proj"), rank=16)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("stepps=3", "did you mean steps?"),
        ("steps", "written KEY=VALUE"),
        ("lora.rank=16", "name modules by lora.targets"),
        ("steps=[", "can't be read"),
    ],
)
def test_a_wrong_setting_is_said_plainly(pair: str, message: str) -> None:
    with pytest.raises(MmebError, match=re.escape(message)):
        changed(find_recipe("demo").recipe, read_settings([pair]))


def test_an_unknown_recipe_suggests_the_nearest() -> None:
    with pytest.raises(MmebError, match="did you mean phi35v-24gb"):
        find_recipe("phi35v-24g")
    with pytest.raises(MmebError, match="is for the adapter phi35v, not clip"):
        find_recipe("phi35v-24gb", "clip")
    with pytest.raises(MmebError, match="--adapter"):
        find_recipe()
