"""`mmeb models`: the registered models, and the input of one."""

import json

import pytest
from click.testing import CliRunner
from support.paths import GOLDEN

from mmeb.cli.main import cli
from mmeb.errors import MmebError
from mmeb.models.entries import ENTRIES


def mmeb(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["models", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_all_registered_models_are_listed() -> None:
    lines = mmeb().splitlines()

    assert [line.split()[0] for line in lines[2:]] == [entry.name for entry in ENTRIES]


def test_the_list_is_there_for_programs() -> None:
    models = {model["name"]: model for model in json.loads(mmeb("--json"))}

    assert models["clip-vit-l14"]["adapter"] == "clip"
    assert models["clip-vit-l14"]["options"] == {"text": "plain"}
    assert models["vlm2vec-phi35v"]["revision"] == "fac2a265b7991f1141b13f88b59cb7156b5b51fd"


def test_a_model_is_shown_with_the_reason_for_its_options() -> None:
    shown = mmeb("show", "clip-vit-l14")

    assert "openai/clip-vit-large-patch14" in shown
    assert "text=plain" in shown
    assert "trained on captions alone" in shown


def test_a_model_is_shown_with_what_it_is_fed_for_each_pair_of_modalities() -> None:
    shown = mmeb("show", "vlm2vec-phi35v")

    assert "text → image+text  (WebQA, EDIS)" in shown
    assert "  query      <|image_1|>\\n⟨instruction⟩ ⟨text⟩\\n\n" in shown
    pairs = {pair["pair"]: pair for pair in json.loads(mmeb("show", "clip-vit-l14", "--json"))["prompts"]}
    assert (pairs["image+text → text"]["query"], pairs["image+text → text"]["candidate"]) == (
        "<|image_1|> + ⟨text⟩",
        "⟨text⟩",
    )


def test_what_a_model_is_fed_is_shown_for_a_real_row() -> None:
    arguments = ("--task", "WebQA", "--data", str(GOLDEN / "data"), "--json")
    shown = json.loads(mmeb("show", str(GOLDEN / "ckpt" / "clip"), *arguments))

    query, candidate = shown["fed"]
    assert query["modality"] == "text"
    assert candidate["modality"] == "image+text"
    assert candidate["fed"] == "<|image_1|> + A sleepy street plays in the dark keyboard in the city."
    assert candidate["tokens"] == 17 + 14  # 4 x 4 patches and a class token; the words between two ends
    assert shown["provenance"]["adapter"] == "clip"


def test_an_option_changes_what_is_fed() -> None:
    arguments = ("--task", "WebQA", "--data", str(GOLDEN / "data"), "--option", "text=raw")
    shown = mmeb("show", str(GOLDEN / "ckpt" / "clip"), *arguments)

    assert (
        "  | <|image_1|> + <|image_1|>\n  | Represent the given Wikipedia image with related text information" in shown
    )


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(MmebError, match="did you mean clip-vit-l14"):
        mmeb("show", "clip-vit-l-14")
