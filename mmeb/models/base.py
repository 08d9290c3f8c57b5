"""The contract between a model and everything that uses one."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from mmeb.data.item import Item
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.resolve import WEIGHTS
from mmeb.models.checkpoints.saving import copy_configuration, save_weights
from mmeb.models.options import NoOptions


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
        """What the inputs take of memory."""
        return sum(tensor.nbytes for tensor in self.inputs.values())

    def pin_memory(self) -> "Batch":
        return replace(self, inputs={name: tensor.pin_memory() for name, tensor in self.inputs.items()})


class EmbeddingModel(ABC):
    """An Item in, a unit vector out.

    The embedding of an item depends on that item alone: not on its neighbours in the batch, the batch size or the
    padding. A subclass is one adapter: it owns its prompt template and says in `provenance` all that moves a score.
    """

    adapter: ClassVar[str]
    weight_files: ClassVar[tuple[str, ...]] = WEIGHTS  # the stems of the files with its weights
    spreads: ClassVar[bool] = False  # whether `load` takes the device "auto": the model spread over all devices
    sketches: ClassVar[bool] = False  # whether `load` takes the device "meta": a model without weights, to look at
    trains: ClassVar[bool] = False  # whether its embeddings carry gradients and `save` can write it
    takes_lora: ClassVar[bool] = False  # whether `load` takes a LoRA over a base
    image_tower: ClassVar[tuple[str, ...]] = ()  # the modules in `module` that see an image before any projection
    options_class: ClassVar[type] = NoOptions  # a dataclass: what `--option` may say, with the defaults

    checkpoint: Checkpoint  # where it came from; a model made anew has none
    name: str  # as the user named it: "clip-vit-l14", a hub id or a folder
    dim: int
    device: torch.device
    dtype: torch.dtype
    module: nn.Module  # what holds the weights; what is trained
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
        """What a model with these options is fed for an item, as a person may read it; the image as `<|image_1|>`."""
        return item.prompt

    def rendered(self, item: Item) -> str:
        """What this model is fed for an item."""
        return self.render(item, self.options)

    def n_tokens(self, item: Item) -> int:
        """How many tokens, text and image, the model sees of an item; may decode its image."""
        return self.preprocess([item]).tokens

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """Write weights, configuration, tokenizer and image processor to an existing folder that `load` takes back.

        `state` is the state of `module` where it can't be asked itself: gathered from many processes, or of less
        precision.
        """
        save_weights(self.module, folder, self.weight_files[0], state)
        copy_configuration(self.checkpoint.path, folder)

    @property
    @abstractmethod
    def provenance(self) -> dict[str, Any]:
        """JSON values: checkpoint, revision, adapter, prompt version, options, dtype, image policy.

        Whatever moves a score stands here: embeddings and results are reused only where it is equal.
        """
