"""One vector per row of hidden states."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def last_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The hidden state of each row's last real token, as a float32 unit vector (n, dim).

    `hidden` is (n, length, dim) after the final norm, padded on the right; `lengths` int64 (n,) counts real tokens.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    return normalize(hidden[rows, lengths.to(hidden.device) - 1].float(), dim=-1)
