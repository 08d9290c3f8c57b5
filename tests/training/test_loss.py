"""InfoNCE, what it leaves out, and the measures of a batch."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mmeb.training.loss import info_nce, measure

_NONE = torch.zeros(3, 3, dtype=torch.bool)
_OWN = torch.arange(3)


def _vectors(seed: int, n: int = 3) -> torch.Tensor:
    return normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def _of_cosines(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and candidates, not of unit length, with these products."""
    return torch.eye(len(rows)), torch.tensor(rows).T.contiguous()


def test_it_is_the_mean_cross_entropy_of_cosines_over_the_temperature() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    scores = np.exp(queries.numpy() @ candidates.numpy().T / 0.05)
    expected = -np.log(np.diag(scores) / scores.sum(axis=1)).mean()
    assert info_nce(queries, candidates, _OWN, _NONE, 0.05).item() == pytest.approx(expected, rel=1e-12)


def test_a_query_finds_its_own_candidate_by_target() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    turned = info_nce(queries, candidates[[2, 0, 1]], torch.tensor([1, 2, 0]), _NONE, 0.05)
    assert turned.item() == pytest.approx(info_nce(queries, candidates, _OWN, _NONE, 0.05).item(), rel=1e-12)


def test_candidates_beyond_the_queries_own_are_negatives() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    more = torch.cat([candidates, _vectors(2)])
    none = torch.zeros(3, 6, dtype=torch.bool)
    assert info_nce(queries, more, _OWN, none, 0.05) > info_nce(queries, candidates, _OWN, _NONE, 0.05)


def test_a_copy_of_the_own_candidate_is_no_negative() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    candidates = torch.cat([candidates[:2], candidates[:1]])  # the third equals the first
    same = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    zero, none = torch.tensor([0]), torch.zeros(1, 3, dtype=torch.bool)
    first = info_nce(queries[:1], candidates[:2], zero, none[:, :2], 0.05)
    second = info_nce(queries[1:2], candidates[[1, 0, 2]], zero, none, 0.05)
    third = info_nce(queries[2:], candidates[[2, 1]], zero, none[:, :2], 0.05)
    expected = (first + second + third) / 3
    assert info_nce(queries, candidates, _OWN, same, 0.05).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_batch_of_one_class_has_no_loss_and_no_gradient(symmetric: bool) -> None:
    queries = _vectors(0).requires_grad_()
    loss = info_nce(queries, _vectors(1), _OWN, torch.ones(3, 3, dtype=torch.bool), 0.05, symmetric=symmetric)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert queries.grad is not None
    assert queries.grad.abs().max() == 0


def test_the_symmetric_loss_is_the_mean_of_both_directions() -> None:
    queries, candidates, hard = _vectors(0), _vectors(1), _vectors(2)
    none = torch.zeros(3, 6, dtype=torch.bool)
    forth = info_nce(queries, torch.cat([candidates, hard]), _OWN, none, 0.05)
    back = info_nce(candidates, queries, _OWN, _NONE, 0.05)
    both = info_nce(queries, torch.cat([candidates, hard]), _OWN, none, 0.05, symmetric=True)
    assert both.item() == pytest.approx((forth.item() + back.item()) / 2, rel=1e-12)


def test_a_query_that_a_candidate_answers_too_is_no_negative_of_it() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    same = _NONE.clone()
    same[2, 0] = True  # candidate 0 answers query 2 too
    forth = info_nce(queries, candidates, _OWN, same, 0.05)
    back = info_nce(candidates, queries, _OWN, same.T, 0.05)
    both = info_nce(queries, candidates, _OWN, same, 0.05, symmetric=True)
    assert both.item() == pytest.approx((forth.item() + back.item()) / 2, rel=1e-12)


def test_a_learned_temperature_takes_a_gradient() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    temperature = torch.tensor([0.05], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: info_nce(queries, candidates, _OWN, _NONE, value), (temperature,))


def test_accuracy_and_rank_count_a_tie_against_the_own_candidate() -> None:
    queries, candidates = _of_cosines([[0.5, 0.2, 0.1], [0.3, 0.3, 0.1], [0.9, 0.8, 0.1]])
    measures = measure(queries, candidates, _OWN, _NONE)
    assert measures.accuracy == pytest.approx(1 / 3)
    assert measures.mean_rank == pytest.approx((1 + 2 + 3) / 3)
    assert measures.margin == pytest.approx((0.3 + 0.0 - 0.8) / 3, abs=1e-6)
    assert measures.masked == 0


def test_measures_leave_copies_out() -> None:
    queries, candidates = _of_cosines([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.3, 0.3, 0.9]])
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    measures = measure(queries, candidates, _OWN, same)
    assert (measures.accuracy, measures.mean_rank) == (1, 1)
    assert measures.margin == pytest.approx((0.4 + 0.4 + 0.6) / 3)
    assert measures.masked == pytest.approx(2 / 6)


def test_a_query_without_negatives_has_no_margin() -> None:
    measures = measure(*_of_cosines([[0.5]]), torch.tensor([0]), torch.tensor([[True]]))
    assert (measures.accuracy, measures.mean_rank, measures.margin, measures.masked) == (1, 1, 0, 0)
