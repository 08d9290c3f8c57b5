"""Which checkpoints a backbone loads, and what is said of those that it does not."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.backbones import CLASSES, PROMPT, SENTENCE, change_weights, copy_of, embed, load, picture, tiny
from support.paths import GOLDEN
from torch import Tensor

from mmeb.errors import MmebError

NORM = {  # the final norm's weight: in the checkpoint, and in a message
    "phi3_v": ("model.norm.weight", "model.norm.weight"),
    "llava_next": ("language_model.model.norm.weight", "language_model.norm.weight"),
    "qwen2_vl": ("model.norm.weight", "language_model.norm.weight"),
}

pytestmark = pytest.mark.parametrize("name", CLASSES)


@pytest.fixture
def copied(name: str, tmp_path: Path) -> Path:
    return copy_of(name, tmp_path / "copy")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, r"lacks 1 weights \({}\)"),
        (torch.zeros(32), r"1 are of another shape \({} is \(32,\), not \(64,\)\)"),
    ],
    ids=["missing", "of another size"],
)
def test_weight_that_does_not_fit_the_config_is_refused(
    name: str, copied: Path, tensor: Tensor | None, message: str
) -> None:
    stored, shown = NORM[name]
    change_weights(copied, lambda weights: weights.pop(stored) if tensor is None else weights.update({stored: tensor}))
    with pytest.raises(MmebError, match=message.format(re.escape(shown))):
        load(name, copied)


def test_additional_weight_is_refused(name: str, copied: Path) -> None:
    extra = NORM[name][0].replace("norm", "extra")
    change_weights(copied, lambda weights: weights.update({extra: torch.zeros(3)}))
    with pytest.raises(MmebError, match=r"no place for 1 \(.*extra.weight\)"):
        load(name, copied)


def test_cut_off_weights_are_refused(name: str, copied: Path) -> None:
    file = copied / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(MmebError, match="can't be read"):
        load(name, copied)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["config.json"], r"config\.json"),
        (["model.safetensors"], r"no weights|no file named model\.safetensors"),
        (["tokenizer.json", "vocab.json", "merges.txt"], "tokenizer"),
    ],
)
def test_missing_file_is_named(name: str, copied: Path, files: list[str], message: str) -> None:
    for file in files:
        (copied / file).unlink(missing_ok=True)
    with pytest.raises(MmebError, match=message):
        load(name, copied)


def test_another_architecture_is_refused(name: str) -> None:
    other = {"phi3_v": "llava_next", "llava_next": "qwen2_vl", "qwen2_vl": "phi3_v"}[name]
    with pytest.raises(MmebError, match=f"is a {other} model, not {name}"):
        load(name, GOLDEN / "ckpt" / other)


def test_weights_in_pickled_form_are_read_as_tensors_only(name: str, copied: Path) -> None:
    weights = copied / "model.safetensors"
    torch.save(load_file(weights), copied / "pytorch_model.bin")
    weights.unlink()
    pickled, original = load(name, copied), tiny(name)
    np.testing.assert_array_equal(
        embed(pickled, [pickled.encode("no", None)]), embed(original, [original.encode("no", None)])
    )


def test_tokenizer_without_pad_token_serves(name: str, copied: Path) -> None:
    path = copied / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["pad_token"]
    path.write_text(json.dumps(config))
    (copied / "special_tokens_map.json").unlink(missing_ok=True)
    without, original, texts = load(name, copied), tiny(name), ["no", SENTENCE]
    assert name == "qwen2_vl" or without.tokenizer.pad_token_id is None  # Qwen2's class has one by default
    found, expected = (embed(model, [model.encode(text, None) for text in texts]) for model in (without, original))
    np.testing.assert_array_equal(found, expected)


def test_automatic_device_map_changes_nothing(name: str) -> None:
    spread, original = load(name, device="auto"), tiny(name)
    row = original.encode(PROMPT, picture("set0/im000.png"))
    np.testing.assert_allclose(embed(spread, [row]), embed(original, [row]), rtol=0, atol=1e-7)
