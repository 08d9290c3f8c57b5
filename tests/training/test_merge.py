"""Merging a LoRA into its base."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.paths import GOLDEN

import mmeb
from mmeb.errors import MmebError
from mmeb.evaluation.probes import probes
from mmeb.models.checkpoints import lora
from mmeb.models.checkpoints.checkpoint import MANIFEST
from mmeb.models.loading import load_model
from mmeb.training.merge import merge

CKPT = GOLDEN / "ckpt"
ITEMS = [probes()[name] for name in ("text circle", "image rgb", "both")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DoRA on a tiny Phi-3.5-V that moves its embeddings, as a run leaves it."""
    folder = tmp_path_factory.mktemp("run")
    model = load_model(str(CKPT / "phi3_v"), device="cpu")
    lora.create(model.module, ["qkv_proj", "down_proj", "q_proj"], rank=4, alpha=16, dropout=0.1, dora=True, seed=0)
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    model.save(folder)
    (folder / MANIFEST).write_text(json.dumps({"adapter": "phi35v", "options": {"num_crops": "2"}}))
    return folder


def test_a_merged_model_is_complete_and_embeds_the_same(run: Path, tmp_path: Path) -> None:
    difference = merge(run, tmp_path / "merged", device="cpu")
    assert 0 < difference < 1e-5
    merged = load_model(str(tmp_path / "merged"), device="cpu")
    assert merged.checkpoint.base is None
    assert merged.options.num_crops == 2
    vectors = [mmeb.encode(model, ITEMS, batch_size=1) for model in (merged, load_model(str(run), device="cpu"))]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-5)
    base = mmeb.encode(load_model(str(CKPT / "phi3_v"), device="cpu"), ITEMS, batch_size=1)
    assert np.abs(vectors[0] - base).max() > 1e-2
    assert json.loads((tmp_path / "merged" / MANIFEST).read_text())["merged_from"]["folder"] == run.name


def test_merged_weights_have_the_dtype_that_is_asked_for(run: Path, tmp_path: Path) -> None:
    merge(run, tmp_path / "merged", device="cpu", dtype="bfloat16")
    kinds = {each.dtype for each in load_file(tmp_path / "merged/model.safetensors").values()}
    assert kinds == {torch.bfloat16}


def test_nothing_is_written_where_embeddings_change(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="nothing is written"):
        merge(run, tmp_path / "merged", device="cpu", tolerance=0.0)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_a_lora_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="full model, not a LoRA"):
        merge(CKPT / "phi3_v", tmp_path / "merged")
    with pytest.raises(MmebError, match="no folder"):
        merge(tmp_path / "none", tmp_path / "merged")


def test_what_already_exists_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(MmebError, match="already exists"):
        merge(run, tmp_path)
    assert (tmp_path / "file").read_text() == "kept"
