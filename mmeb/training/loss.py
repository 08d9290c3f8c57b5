"""The contrastive loss, and measures of a batch's similarities."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def info_nce(
    queries: Tensor,
    candidates: Tensor,
    targets: Tensor,
    same: Tensor,
    temperature: float | Tensor,
    *,
    symmetric: bool = False,
) -> Tensor:
    """InfoNCE from queries to candidates, a scalar: the mean over queries of -log softmax of the target.

    `queries` (n, dim) and `candidates` (m, dim), m >= n, are unit vectors; `targets` int64 (n,) says which candidate
    is a query's target, the rest are negatives. `same` is bool (n, m), true where a candidate equals one that answers
    the query: such copies (a class name that two pairs of a batch share) are no negatives and are left out; at a
    query's target it says nothing. `temperature` may be a tensor of one element that takes a gradient.

    `symmetric` averages it with the loss in the other direction: from each query's target to the queries, of
    which those that the target answers too are left out.
    """
    logits = queries @ candidates.T / temperature
    loss = cross_entropy(logits.masked_fill(_copies(targets, same), float("-inf")), targets)
    if not symmetric:
        return loss
    rows = torch.arange(len(queries), device=queries.device)
    backwards = logits[:, targets].T.masked_fill(_copies(rows, same[:, targets].T), float("-inf"))
    return (loss + cross_entropy(backwards, rows)) / 2


@dataclass(frozen=True)
class Measures:
    """How well a batch's queries find their targets, copies left out.

    `accuracy` is the share of queries whose target comes first, `mean_rank` its mean rank, 1 is first; a tie
    counts against it. `margin` is the mean of its cosine less that of the hardest negative, over the queries that have
    a negative (0 where none has). `masked` is the share of all pairs of a query and another's candidate that were left
    out as copies.
    """

    accuracy: float
    mean_rank: float
    margin: float
    masked: float


@torch.no_grad()
def measure(queries: Tensor, candidates: Tensor, targets: Tensor, same: Tensor) -> Measures:
    """The measures of a batch; the arguments are those of `info_nce`."""
    cosines = queries @ candidates.T
    copies = _copies(targets, same)
    positives = cosines.gather(1, targets[:, None])
    negatives = cosines.masked_fill(copies.scatter(1, targets[:, None], True), float("-inf"))
    ranks = 1.0 + (negatives >= positives).sum(dim=1)
    margins = (positives.squeeze(1) - negatives.amax(dim=1))[negatives.isfinite().any(dim=1)]
    values = ((ranks == 1).float().mean(), ranks.mean(), margins.sum() / max(1, len(margins)), copies.sum())
    accuracy, mean_rank, margin, n_copies = torch.stack([value.double() for value in values]).tolist()
    return Measures(accuracy, mean_rank, margin, n_copies / max(1, copies.numel() - len(copies)))


def _copies(targets: Tensor, same: Tensor) -> Tensor:
    """`same` without each query's target."""
    return same.scatter(1, targets[:, None], False)
