"""Two and four processes have the loss and the gradient of one, on the same global batch."""

import numpy as np
import pytest
from support.contrastive_steps import assert_equal_gradients, reference, total_norm
from support.process_steps import CASES, Taken, take_steps
from support.processes import spawned

from mmeb.training.step import StepResult

NOT_SKIPPED = "bad rows, not skipped"
EQUAL = [name for name in CASES if name != NOT_SKIPPED]
SHARDED = ["micro-batches", "one graph", "few items", "dropout", "checkpointing", "learned temperature", "bad rows"]

Runs = dict[int, list[dict[str, Taken]]]


@pytest.fixture(scope="module")
def runs() -> Runs:
    """By number of processes and rank."""
    names = list(CASES)
    return {1: [take_steps(names)], **{world: spawned(world, take_steps, names) for world in (2, 4)}}


def _outcomes(runs: Runs, world: int, name: str) -> list[StepResult]:
    outcomes = [run[name].outcome for run in runs[world]]
    assert all(outcomes), [run[name].error for run in runs[world]]
    return [outcome for outcome in outcomes if outcome is not None]


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("name", EQUAL)
def test_loss_and_gradients_are_those_of_one_process(runs: Runs, name: str, world: int) -> None:
    (alone,) = _outcomes(runs, 1, name)
    for outcome, run in zip(_outcomes(runs, world, name), runs[world], strict=True):
        assert outcome.loss == pytest.approx(alone.loss, rel=1e-6)
        assert outcome.skipped_rows == alone.skipped_rows
        assert_equal_gradients(run[name].gradients, runs[1][0][name].gradients)


@pytest.mark.parametrize("name", EQUAL)
def test_all_processes_come_to_the_very_same(runs: Runs, name: str) -> None:
    for world in (2, 4):
        first, *others = _outcomes(runs, world, name)
        assert all(other == first for other in others)


@pytest.mark.parametrize("name", EQUAL)
def test_items_and_tokens_are_counted_once_over_all_processes(runs: Runs, name: str) -> None:
    counts = [(outcome.items, outcome.tokens) for world in runs for outcome in _outcomes(runs, world, name)]
    assert len(set(counts)) == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_have_the_reference_loss_and_gradients(runs: Runs, rank: int) -> None:
    """The reference's loss of a process is twice the batch's, to undo the mean of the gradients."""
    expected = reference(f"phi3_v_ddp_rank{rank}")["chunk2"]
    assert _outcomes(runs, 2, "reference")[rank].loss == pytest.approx(expected["loss_divided_by_world"], rel=1e-5)
    found = runs[2][rank]["reference"].gradients
    assert total_norm(found) == pytest.approx(expected["total"], rel=1e-5)
    norms = {name: float(np.linalg.norm(gradient)) for name, gradient in found.items()}
    assert norms == pytest.approx(expected["norms"], rel=1e-4, abs=1e-7 * expected["total"])


def test_skipped_rows_are_the_same_in_all_processes(runs: Runs) -> None:
    for world in runs:
        for outcome in _outcomes(runs, world, "bad rows"):
            assert (outcome.skipped_rows, outcome.unreadable) == ((1, 4), 2)


def test_an_image_that_cannot_be_read_is_the_same_error_in_all_processes(runs: Runs) -> None:
    for world in runs:
        errors = {run[NOT_SKIPPED].error for run in runs[world]}
        assert len(errors) == 1
        assert "can't be read: No such file or directory" in errors.pop()


@pytest.fixture(scope="module")
def sharded() -> list[dict[str, Taken]]:
    ran: list[dict[str, Taken]] = spawned(2, take_steps, SHARDED, True)
    return ran


@pytest.mark.parametrize("name", SHARDED)
def test_sharded_weights_have_the_gradients_of_whole_ones(
    runs: Runs, sharded: list[dict[str, Taken]], name: str
) -> None:
    """FSDP: processes gather each layer's weights together, so that one with other layers to run would hang them."""
    (alone,) = _outcomes(runs, 1, name)
    for run in sharded:
        taken = run[name]
        assert taken.outcome is not None, taken.error
        assert taken.outcome.loss == pytest.approx(alone.loss, rel=1e-6)
        assert_equal_gradients(taken.gradients, runs[1][0][name].gradients)
