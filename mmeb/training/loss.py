"""The contrastive loss."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def info_nce(queries: Tensor, candidates: Tensor, same: Tensor, temperature: float) -> Tensor:
    """InfoNCE from queries to candidates, a scalar: the mean over queries of -log softmax of the own candidate.

    `queries` (n, dim) and `candidates` (m, dim), m >= n, are unit vectors; candidate i belongs to query i, the rest are
    negatives. `same` is bool (n, m), true where a candidate equals the query's own one: such copies (a class name that
    two pairs of a batch share) are no negatives and are left out.
    """
    logits = queries @ candidates.T / temperature
    targets = torch.arange(len(queries), device=queries.device)
    copies = same.clone()
    copies[targets, targets] = False
    return cross_entropy(logits.masked_fill(copies, float("-inf")), targets)
