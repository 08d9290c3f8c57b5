"""Outside input becomes typed values, or one sentence that says what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt

from mmeb.errors import MmebError
from mmeb.inputs import Names, Text, parse, suggest


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Lora:
    targets: Names
    rank: int = 8

    def __post_init__(self) -> None:
        if not self.targets:
            raise MmebError("A LoRA needs targets.")


@dataclass(frozen=True)
class Settings:
    adapter: str
    lora: Lora | None = None
    options: Mapping[str, Text] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    crops: Literal["auto"] | Annotated[int, Gt(0)] = "auto"
    schedule: Literal["linear", "cosine"] = "linear"
    colour: Colour = Colour.RED
    learning_rate: float = 2e-5
    negatives: Annotated[int, Ge(0)] = 0
    symmetric: bool = False
    output: Path | None = None


def test_plain_values_become_a_dataclass() -> None:
    content = {
        "adapter": "demo",
        "lora": {"targets": ["q_proj", "v_proj"], "rank": 16},
        "weights": {"OK-VQA": 2},
        "crops": 8,
        "schedule": "cosine",
        "colour": "blue",
        "symmetric": True,
        "output": "runs/x",
    }
    settings = parse(Settings, content, "recipe.yaml")
    assert settings == Settings(
        "demo",
        Lora(("q_proj", "v_proj"), 16),
        weights={"OK-VQA": 2.0},
        crops=8,
        schedule="cosine",
        colour=Colour.BLUE,
        symmetric=True,
        output=Path("runs/x"),
    )


def test_numbers_may_be_text_and_text_numbers() -> None:
    content = {"adapter": "demo", "learning_rate": "2e-5", "negatives": "3", "crops": "8", "options": {"crops": 4}}
    settings = parse(Settings, content, "recipe.yaml")
    assert (settings.learning_rate, settings.negatives, settings.crops) == (2e-5, 3, 8)
    assert settings.options == {"crops": "4"}


def test_a_list_of_names_may_be_comma_separated() -> None:
    assert parse(Lora, {"targets": "q_proj, v_proj"}, "recipe.yaml").targets == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rat": 1}, "recipe.yaml: there is no setting 'learning_rat': did you mean learning_rate?"),
        ({"adaptr": 1}, "recipe.yaml: there is no setting 'adaptr': did you mean adapter?"),
        (
            {"lora": {"targets": ["a"], "rnk": 1}},
            "recipe.yaml: there is no setting 'lora.rnk': did you mean lora.rank?",
        ),
        ({"lora": {"targets": ["a"], "q": 1}}, "recipe.yaml: there is no setting 'lora.q': there are lora.targets, "),
        ({1: 2}, "recipe.yaml: there is no setting '1': there are adapter, lora, "),
        ({"lora": {"rank": 1}}, "recipe.yaml lacks the setting lora.targets."),
        ({"lora": {"targets": ["a"], "rank": 2.0}}, "recipe.yaml: lora.rank must be an integer, not 2.0."),
        ({"lora": {"targets": ["a"], "rank": 2.5}}, "recipe.yaml: lora.rank must be an integer, not 2.5."),
        ({"lora": {"targets": ["a"], "rank": "x"}}, "recipe.yaml: lora.rank must be an integer, not 'x'."),
        ({"lora": {"targets": ["a"], "rank": True}}, "recipe.yaml: lora.rank must be an integer, not True."),
        ({"lora": {"targets": ["a", 3]}}, "recipe.yaml: lora.targets.1 must be text, not 3."),
        ({"lora": {"targets": 3}}, "recipe.yaml: lora.targets must be a list, not 3."),
        ({"lora": 3}, "recipe.yaml: lora must be a mapping of settings, not 3."),
        ({"learning_rate": True}, "recipe.yaml: learning_rate must be a number, not True."),
        ({"weights": {"OK-VQA": "much"}}, "recipe.yaml: weights.OK-VQA must be a number, not 'much'."),
        ({"weights": {"OK-VQA": False}}, "recipe.yaml: weights.OK-VQA must be a number, not False."),
        ({"symmetric": "yes"}, "recipe.yaml: symmetric must be true or false, not 'yes'."),
        ({"symmetric": 1}, "recipe.yaml: symmetric must be true or false, not 1."),
        ({"schedule": "step"}, "recipe.yaml: schedule must be 'linear' or 'cosine', not 'step'."),
        ({"colour": "green"}, "recipe.yaml: colour must be 'red' or 'blue', not 'green'."),
        ({"crops": "many"}, "recipe.yaml: crops must be 'auto' or an integer, not 'many'."),
        ({"crops": 0}, "recipe.yaml: crops must be 'auto' or above 0, not 0."),
        ({"crops": True}, "recipe.yaml: crops must be an integer, not True."),
        ({"negatives": -1}, "recipe.yaml: negatives must be 0 or more, not -1."),
        ({"adapter": None}, "recipe.yaml: adapter must be text, not None."),
        ({"adapter": ["x" * 100]}, f"recipe.yaml: adapter must be text, not ['{'x' * 78}…."),
        ({"options": {"a": []}}, "recipe.yaml: options.a must be text, not []."),
        ({"lora": {"targets": []}}, "A LoRA needs targets."),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes: dict[Any, Any], message: str) -> None:
    with pytest.raises(MmebError) as error:
        parse(Settings, {"adapter": "demo", **changes} if "adaptr" not in changes else changes, "recipe.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_content_of_another_kind_is_refused() -> None:
    with pytest.raises(MmebError, match=r"^The task file x.yaml must be a mapping of fields, not \['a'\]\.$"):
        parse(Settings, ["a"], "The task file x.yaml", noun="field")
    with pytest.raises(MmebError, match=r"^x.yaml lacks the field adapter\.$"):
        parse(Settings, {}, "x.yaml", noun="field")


def test_strict_input_has_numbers_as_numbers() -> None:
    assert parse(Settings, {"adapter": "demo", "learning_rate": 1}, "run.json", strict=True).learning_rate == 1.0
    with pytest.raises(MmebError, match=r"^run.json: learning_rate must be a number, not '2e-5'\.$"):
        parse(Settings, {"adapter": "demo", "learning_rate": "2e-5"}, "run.json", strict=True)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("imagenet1k", {}, "did you mean ImageNet-1K?"),
        ("ImageNet-b", {"n": 2}, "did you mean ImageNet-R or ImageNet-A?"),
        ("xyz", {}, ""),
        ("Imag", {"cutoff": 0.9}, ""),
    ],
)
def test_the_nearest_names_are_suggested(name: str, options: dict[str, Any], expected: str) -> None:
    assert suggest(name, ["ImageNet-1K", "ImageNet-A", "ImageNet-R", "OK-VQA"], **options) == expected
