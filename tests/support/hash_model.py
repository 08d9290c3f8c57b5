"""Small real models for the tests of evaluation: they embed what an item says, and can be told to misbehave."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from mmeb.data.item import Item
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint


class HashModel(EmbeddingModel):
    """Embeds an item by a hash of its content, mixed by a linear layer; a memory limit and faults on demand."""

    adapter = "hash"

    def __init__(self, *, dim: int = 16, max_batch: int | None = None, fault: str = "", breaks_after: int = -1) -> None:
        self.name = "hash"
        self.dim = dim
        self.device = torch.device("cpu")
        self.dtype = torch.float32
        self.module = nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            self.module.weight.copy_(torch.randn(dim, dim, generator=torch.Generator().manual_seed(0)))
        self.max_batch = max_batch
        self.breaks_after = breaks_after
        self.fault = fault
        self.batch_sizes: list[int] = []

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        return cls()

    def preprocess(self, items: Sequence[Item]) -> Batch:
        return Batch({"x": torch.stack([self._content(item) for item in items])}, len(items))

    def embed(self, batch: Batch) -> Tensor:
        if self.max_batch is not None and batch.size > self.max_batch:
            raise torch.OutOfMemoryError("out of memory")
        if len(self.batch_sizes) == self.breaks_after:
            raise KeyboardInterrupt
        self.batch_sizes.append(batch.size)
        vectors: Tensor = self.module(batch.inputs["x"])
        match self.fault:
            case "constant":
                vectors = torch.ones_like(vectors)
            case "nan":
                vectors = vectors * torch.nan
            case "zero":
                return vectors * 0
        return torch.nn.functional.normalize(vectors, dim=-1)

    def cost(self, item: Item) -> int:
        return 1 + len(item.prompt)

    @property
    def provenance(self) -> dict[str, Any]:
        return {"name": self.name, "adapter": self.adapter, "dtype": "float32", "dim": self.dim}

    def _content(self, item: Item) -> Tensor:
        content = item.prompt.encode()
        if item.image is not None:
            content += item.image.rgb().tobytes()
        seed = int.from_bytes(hashlib.blake2b(content, digest_size=7).digest())
        return torch.randn(self.dim, generator=torch.Generator().manual_seed(seed))
