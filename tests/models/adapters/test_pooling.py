"""Pooling at the last real token."""

import torch

from mmeb.models.adapters.decoder_embedder import last_token


def test_last_real_token_of_each_row_as_a_unit_vector() -> None:
    hidden = torch.zeros(2, 3, 2)
    hidden[0, 2] = torch.tensor([3.0, 4.0])
    hidden[1, 0] = torch.tensor([0.0, -2.0])
    hidden[1, 1:] = 9.0  # padding
    pooled = last_token(hidden, torch.tensor([3, 1]))
    torch.testing.assert_close(pooled, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_half_precision_is_normalised_in_float32() -> None:
    hidden = torch.randn(4, 2, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    pooled = last_token(hidden, torch.tensor([2, 2, 1, 1]))
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(4))


def test_gradient_reaches_the_pooled_token_alone() -> None:
    hidden = torch.randn(1, 3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(last_token(hidden, torch.tensor([2])).sum(), hidden)
    assert gradient[0, 1].abs().sum() > 0
    assert gradient[0, [0, 2]].abs().sum() == 0
