"""A model's forward pass as a module, which is what the library prepares, wraps and shards."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmeb.models.base import Batch, EmbeddingModel


class Embedder(nn.Module):
    """The model's weights, and the temperature where it is learned.

    `log_temperature` is float32 (1,), or None; one element rather than a scalar, which could not be sharded.
    `_no_split_modules` are the layers that the library shards by, as in its own models.
    """

    def __init__(self, model: EmbeddingModel, temperature: float | None = None) -> None:
        """`temperature` is where a learned one starts."""
        super().__init__()
        self.weights = model.module
        self.model = model
        start = None if temperature is None else torch.tensor([math.log(temperature)], device=model.device)
        self.log_temperature = None if start is None else nn.Parameter(start)
        layers = {name for part in self.modules() for name in getattr(part, "_no_split_modules", None) or ()}
        self._no_split_modules = sorted(layers & {type(part).__name__ for part in self.modules()})

    def forward(self, batches: Sequence[Batch], seeds: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        """Unit vectors (batch.size, dim) of each batch, and the logarithm of the temperature where it is learned.

        Each batch runs under the random state of its seed, so that another pass over it drops the very same units;
        the state outside stays as it was.
        """
        # torch.manual_seed seeds all devices, and writes a stack trace down where a GPU's library finds no GPU.
        set_seed = torch.default_generator.manual_seed if self.model.device.type == "cpu" else torch.manual_seed
        vectors = []
        for batch, seed in zip(batches, seeds, strict=True):
            with torch.random.fork_rng([self.model.device] if self.model.device.type == "cuda" else []):
                set_seed(seed)
                vectors.append(self.model.embed(batch))
        # The temperature comes out of the forward pass like the vectors: a wrapper then reduces its gradient too.
        return vectors, None if self.log_temperature is None else self.log_temperature.clone()
