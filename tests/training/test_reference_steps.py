"""One training step, and three with an optimizer, against what the reference implementation computed."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from support.contrastive_steps import (
    Gradients,
    golden_model,
    golden_pairs,
    make_step,
    pair,
    reference,
    take_step,
    total_norm,
)
from support.paths import GOLDEN
from torch.nn.utils import clip_grad_norm_
from transformers import get_linear_schedule_with_warmup

from mmeb.data.train.dataset import TrainPair
from mmeb.models.base import EmbeddingModel
from mmeb.training.recipe import Recipe
from mmeb.training.step import Embedder, contrastive_step

# The reference makes no use of hard negatives, nor does it mask equal targets.
_RECIPE = Recipe("phi35v", batch_size=8, negatives=0, mask_equal_targets=False)


@pytest.fixture(scope="module", params=["phi3_v", "qwen2_vl"])
def name(request: pytest.FixtureRequest) -> str:
    folder: str = request.param
    return folder


@pytest.fixture(scope="module")
def model(name: str) -> EmbeddingModel:
    return golden_model(name)


def _reference_name(name: str) -> str:
    """The reference's name of a weight: Qwen2-VL's decoder was called otherwise."""
    return name.replace("language_model.", "model.", 1) if name.startswith("language_model.") else name


def _assert_norms(found: Gradients, expected: dict[str, float], tolerance: float = 1e-4) -> None:
    """Every gradient's norm, relative; where it is nothing but rounding, it is so here."""
    norms = {_reference_name(name): float(np.linalg.norm(grad)) for name, grad in found.items()}
    assert norms.keys() == expected.keys()
    nothing = 1e-7 * float(np.linalg.norm(list(expected.values())))
    for name, norm in expected.items():
        assert norms[name] == pytest.approx(norm, rel=tolerance, abs=nothing), name


@pytest.mark.parametrize("size", [None, 1, 2, 4, 8])
def test_loss_and_every_gradient_are_the_reference_ones(name: str, model: EmbeddingModel, size: int | None) -> None:
    expected = reference(name)["no_gradcache" if size is None else f"gradcache_chunk{size}"]
    outcome, found = take_step(model, golden_pairs(), replace(_RECIPE, micro_batch_size=size))
    assert outcome.loss == pytest.approx(expected["loss"], rel=1e-5)
    assert total_norm(found) == pytest.approx(expected["total"], rel=1e-5)
    _assert_norms(found, expected["norms"])
    arrays = np.load(GOLDEN / f"train/{name}.npz")
    full = {name: grad for name, grad in found.items() if f"grad/{_reference_name(name)}" in arrays}
    assert len(full) > 50
    for name_, grad in full.items():
        expected_grad = arrays[f"grad/{_reference_name(name_)}"]
        np.testing.assert_allclose(grad, expected_grad, rtol=0, atol=1e-6 * expected["total"], err_msg=name_)


def test_representations_are_the_reference_ones(name: str, model: EmbeddingModel) -> None:
    pairs = golden_pairs()
    batch = make_step(model, pairs, replace(_RECIPE, micro_batch_size=3))
    vectors = np.empty((batch.plan.pairing.n_items, model.dim), dtype=np.float32)
    with torch.no_grad():
        for (micro_batch,) in batch.first_pass():
            assert micro_batch.inputs is not None
            vectors[micro_batch.positions] = model.embed(micro_batch.inputs).numpy()
    arrays = np.load(GOLDEN / f"train/{name}.npz")
    np.testing.assert_allclose(vectors[batch.plan.pairing.queries], arrays["qry_reps"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(vectors[batch.plan.pairing.candidates], arrays["tgt_reps"], rtol=0, atol=1e-5)


def test_equal_targets_are_negatives_in_the_reference_and_not_here() -> None:
    """Row 6 gets the answer of row 0: the reference then has each question's own answer among its negatives."""
    model, pairs = golden_model("qwen2_vl"), golden_pairs()
    recipe = replace(_RECIPE, micro_batch_size=4, temperature=1.0)
    pairs[6] = replace(pairs[6], positives=pairs[0].positives)
    theirs, pulled_less = take_step(model, pairs, recipe)
    ours, pulled = take_step(model, pairs, replace(recipe, mask_equal_targets=True))
    assert theirs.measures.masked == 0
    assert ours.measures.masked == pytest.approx(2 / 56)
    assert ours.loss < theirs.loss - 0.01
    assert abs(total_norm(pulled) / total_norm(pulled_less) - 1) > 0.01


def test_a_batch_of_one_class_teaches_nothing_here_and_has_a_loss_in_the_reference() -> None:
    model = golden_model("qwen2_vl")
    recipe = replace(_RECIPE, micro_batch_size=4)
    pairs = [replace(pair, positives=golden_pairs()[0].positives) for pair in golden_pairs()]
    theirs, _ = take_step(model, pairs, recipe)
    ours, gradients = take_step(model, pairs, replace(recipe, mask_equal_targets=True))
    assert theirs.loss == pytest.approx(np.log(8), rel=1e-6)
    assert ours.loss == 0
    assert all((gradient == 0).all() for gradient in gradients.values())


def test_hard_negatives_are_dropped_in_the_reference_and_used_here() -> None:
    """Rows 4 and 5 have one each."""
    model, recipe = golden_model("qwen2_vl"), replace(_RECIPE, micro_batch_size=4)
    without, _ = take_step(model, golden_pairs(), recipe)
    with_negatives, _ = take_step(model, golden_pairs(), replace(recipe, negatives=None))
    assert with_negatives.items == without.items + 2
    assert with_negatives.loss > without.loss


def _trainpy_batches() -> list[list[TrainPair]]:
    """The batches that the reference's script drew from the three subsets laid end to end."""
    tables = [pq.read_table(GOLDEN / f"data/MMEB-train/{name}") for name in ("A-OKVQA", "MSCOCO_t2i", "CIRR")]
    rows = [row for table in tables for row in table.to_pylist()]
    (order,) = (value for key, value in reference("phi3_v_trainpy_3steps").items() if key.startswith("getitem_order"))
    return [[pair(rows[number]) for number in order[start : start + 8]] for start in (0, 8, 16)]


def test_three_optimizer_steps_are_the_reference_ones() -> None:
    """AdamW, a linear schedule with a step of warm-up, gradients clipped to 1, micro-batches of 2."""
    expected = reference("phi3_v_trainpy_3steps")
    recipe = replace(_RECIPE, micro_batch_size=2)
    model = golden_model("phi3_v")
    embedder = Embedder(model).train()
    optimizer = torch.optim.AdamW(embedder.parameters(), lr=1e-3, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=1, num_training_steps=3)
    for step, (pairs, line) in enumerate(zip(_trainpy_batches(), expected["log_history"], strict=True)):
        batch = make_step(model, pairs, recipe, step=step)
        outcome = contrastive_step(embedder, batch, recipe, Accelerator(cpu=True))
        norm = clip_grad_norm_(embedder.parameters(), 1.0)
        assert outcome.loss == pytest.approx(line["loss"], abs=5e-5)  # logged with four digits
        assert float(norm) == pytest.approx(line["grad_norm"], rel=1e-5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        assert schedule.get_last_lr() == [pytest.approx(line["learning_rate"])]
    norms = {name: float(weight.detach().norm()) for name, weight in model.module.named_parameters()}
    aliases = ("wte.weight", "lm_head.weight")  # of a tied matrix, and of the head that is not loaded
    expected_norms = {
        name: norm for name, norm in expected["param_norms_after_3_steps"].items() if not name.endswith(aliases)
    }
    assert norms == pytest.approx(expected_norms, rel=1e-5)
