"""InfoNCE, and what it leaves out."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mmeb.training.loss import info_nce

_NONE = torch.zeros(3, 3, dtype=torch.bool)


def _vectors(seed: int, n: int = 3) -> torch.Tensor:
    return normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def test_it_is_the_mean_cross_entropy_of_cosines_over_the_temperature() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    scores = np.exp(queries.numpy() @ candidates.numpy().T / 0.05)
    expected = -np.log(np.diag(scores) / scores.sum(axis=1)).mean()
    assert info_nce(queries, candidates, _NONE, 0.05).item() == pytest.approx(expected, rel=1e-12)


def test_candidates_beyond_the_queries_own_are_negatives() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    more = torch.cat([candidates, _vectors(2)])
    none = torch.zeros(3, 6, dtype=torch.bool)
    assert info_nce(queries, more, none, 0.05) > info_nce(queries, candidates, _NONE, 0.05)


def test_a_copy_of_the_own_candidate_is_no_negative() -> None:
    queries, candidates = _vectors(0), _vectors(1)
    candidates = torch.cat([candidates[:2], candidates[:1]])  # the third equals the first
    same = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    first = info_nce(queries[:1], candidates[:2], torch.tensor([[True, False]]), 0.05)
    second = info_nce(queries[1:2], candidates[[1, 0, 2]], torch.zeros(1, 3, dtype=torch.bool), 0.05)
    third = info_nce(queries[2:], candidates[[2, 1]], torch.tensor([[True, False]]), 0.05)
    expected = (first + second + third) / 3
    assert info_nce(queries, candidates, same, 0.05).item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_batch_of_one_class_has_no_loss_and_no_gradient() -> None:
    queries = _vectors(0).requires_grad_()
    loss = info_nce(queries, _vectors(1), torch.ones(3, 3, dtype=torch.bool), 0.05)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert queries.grad is not None
    assert queries.grad.abs().max() == 0
