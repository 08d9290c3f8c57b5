"""The contract between a model and everything that uses one."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.inputs import parse
from mmeb.models.checkpoints.checkpoint import WEIGHTS, Checkpoint


@dataclass(frozen=True)
class Batch:
    """What `preprocess` makes of some items and `embed` takes.

    `inputs` are tensors by name; what they are is between the two methods. `size` is the number of items, in order.
    `tokens` counts the real tokens (text and image) that the model will see, `padding` those that only fill rows up,
    `truncated` the items whose text was cut at the context length.
    """

    inputs: dict[str, Tensor]
    size: int
    tokens: int = 0
    padding: int = 0
    truncated: int = 0

    def to(self, device: torch.device) -> "Batch":
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=moved)

    @property
    def n_bytes(self) -> int:
        """The memory that the inputs take."""
        return sum(tensor.nbytes for tensor in self.inputs.values())

    def pin_memory(self) -> "Batch":
        return replace(self, inputs={name: tensor.pin_memory() for name, tensor in self.inputs.items()})


@dataclass(frozen=True)
class Capabilities:
    """What an adapter can do beyond embedding on one device, and what the names in its checkpoints are.

    `meta`: `load` takes the device "meta" (shapes, tokenizer and image processor, no weights). `spread`: `load` takes
    the device "auto" (all devices together). `training`: gradients flow through `embed`, all weights are in `module`,
    and `save` writes what `load` takes. `lora`: `load` takes a LoRA over a base. `image_tower`: the submodules of
    `module` that see an image before any projection. `weight_files`: the stems of the files with the weights.
    """

    meta: bool = False
    spread: bool = False
    training: bool = False
    lora: bool = False
    image_tower: tuple[str, ...] = ()
    weight_files: tuple[str, ...] = WEIGHTS


@dataclass(frozen=True)
class NoOptions:
    """An adapter without options."""


class EmbeddingModel(ABC):
    """An Item in, a unit vector out.

    The embedding of an item depends on that item alone: not on its neighbours in the batch, the batch size or the
    padding. A subclass is one adapter: it holds its prompt template and says in `provenance` all that affects a score.
    """

    adapter: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()
    options_class: ClassVar[type] = NoOptions  # a dataclass: the names, types and defaults of `--option`

    checkpoint: Checkpoint  # where it came from; a newly initialised model has none
    name: str  # as the user named it: "clip-vit-l14", a hub id or a folder
    dim: int
    device: torch.device
    dtype: torch.dtype
    module: nn.Module  # holds the weights
    options: Any = NoOptions()  # an instance of `options_class`

    @classmethod
    @abstractmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        """Load a checkpoint from its local folder.

        `options` are the user's `--option key=value` over the registry's. Raises MmebError for a checkpoint of
        another architecture, a missing or unexpected weight, and an unknown option or value.
        """

    @classmethod
    def parse_options(cls, options: Mapping[str, str]) -> Any:
        """`options_class` with a user's options. Raises MmebError for an unknown one and for a wrong value."""
        return parse(cls.options_class, dict(options), f"The adapter {cls.adapter}", noun="option")

    @abstractmethod
    def preprocess(self, items: Sequence[Item]) -> Batch:
        """CPU work: decode, resize, tokenise. Runs in worker processes and must not touch the weights."""

    @abstractmethod
    def embed(self, batch: Batch) -> Tensor:
        """The forward pass: unit vectors (batch.size, dim), on the model's device. Gradients flow if they are on."""

    @abstractmethod
    def cost(self, item: Item) -> int:
        """An estimate of the item's tokens, without decoding its image. Batches are sorted and cut by it."""

    def group(self, item: Item) -> Hashable:
        """Items of different groups never share a batch; by default the modality."""
        return item.modality

    @classmethod
    def render(cls, item: Item, options: Any) -> str:
        """The model input for an item under these options, in readable form; the image as `<|image_1|>`."""
        return item.prompt

    def rendered(self, item: Item) -> str:
        """The input of this model for an item."""
        return self.render(item, self.options)

    def n_tokens(self, item: Item) -> int:
        """How many tokens, text and image, the model sees of an item; may decode its image."""
        return self.preprocess([item]).tokens

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write weights, configuration, tokenizer and image processor to an existing folder that `load` takes back.

        `state` is the state of `module` where it can't be asked itself: gathered from many processes, or of less
        precision.
        """
        raise MmebError(f"A model of the adapter {self.adapter} can't be saved.")

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """JSON values: checkpoint, revision, adapter, prompt version, options, dtype, image policy.

        Whatever affects a score stands here: embeddings and results are reused only where it is equal.
        """
