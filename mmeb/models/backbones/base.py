"""What a vision-language backbone does: prompts and images in, hidden states out."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmeb.models.base import Batch
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.lora import Layout


@dataclass(frozen=True)
class EncodedImage:
    """An image as a backbone's tower takes it, `tensors` by name, and how many tokens of a row it fills."""

    tensors: dict[str, Tensor]
    n_tokens: int


@dataclass(frozen=True)
class EncodedRow:
    """One prompt, with its image if there is one, as a backbone takes it.

    `ids` is int64 (length,), with as many image tokens as the image has features; `is_image` is bool (length,), true
    where a feature of the image replaces the token's embedding, so that a bare image token without image is told from
    those; `image` holds the image's tensors by name and is empty for text; rows with the very same dictionary share an
    image. `truncated` says that text was cut.
    """

    ids: Tensor
    is_image: Tensor
    image: dict[str, Tensor] = field(default_factory=dict)
    truncated: bool = False


class Backbone(ABC):
    """A decoder with an image tower, without language-model head.

    `module` holds the weights; what peft wraps, it changes in place, so that `forward` keeps working on it. `encode`,
    `collate` and `n_tokens` run in worker processes: they read configuration and tokenizer, never weights.
    """

    layouts: ClassVar[Sequence[Layout]] = ()  # the names that adapters have for its modules, today's first
    module: nn.Module
    dim: int
    pad_id: int
    max_length: int  # tokens of a row, image and text; longer text is cut at its end

    @abstractmethod
    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
    ) -> None:
        """Load weights, tokenizer and image processor from a local folder, beside options of the backbone's own.

        Device "auto" spreads the module over all there are; a `max_length` of None is as much as the backbone takes.
        Raises MmebError for another architecture and for a weight that is missing, left over or misshapen.
        """

    def encode(self, prompt: str, image: Image.Image | None) -> EncodedRow:
        """A prompt, in which `<|image_1|>` marks the image's place, and its image as tensors."""
        return self.encode_row(prompt, None if image is None else self.encode_image(image))

    @abstractmethod
    def encode_image(self, image: Image.Image) -> EncodedImage:
        """The tensors of an image that comes in any mode; the backbone converts it to RGB."""

    @abstractmethod
    def encode_row(self, prompt: str, image: EncodedImage | None) -> EncodedRow:
        """Tokenise a prompt, in which `<|image_1|>` marks the place of the image, which other rows may share.

        A placeholder without image becomes what the published models were trained on: the bare image token, or plain
        text in Phi-3.5-V. Raises MmebError where the image alone fills `max_length`.
        """

    @abstractmethod
    def n_tokens(self, prompt: str, image_size: tuple[int, int] | None) -> int:
        """The length of `encode(...).ids` for an image of (width, height) pixels, without the image itself."""

    @abstractmethod
    def collate_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """One batch of the tensors of at least one image; an image that rows share stands in it once."""

    @abstractmethod
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The last hidden states after the final norm, (n, length, dim), of the `inputs` of a collated batch."""

    def group(self, n_tokens: int) -> Hashable:
        """What rows must have in common to share a batch without changing one another; by default nothing."""
        return None

    @property
    def image_policy(self) -> dict[str, Any]:
        """What of the image processing affects a score beside the options, as JSON values."""
        return {}

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """Rows padded on the right: causal attention never looks there, so no mask is needed.

        `inputs` holds `input_ids` int64 and `is_image` bool, both (n, length), `lengths` int64 (n,), the tensors of
        `collate_images` where a row has an image, and where rows share one `feature_rows` int64 (n_image_tokens,):
        which of the features of all distinct images each image token takes.
        """
        lengths = torch.tensor([len(row.ids) for row in rows])
        input_ids = pad_sequence([row.ids for row in rows], batch_first=True, padding_value=self.pad_id)
        is_image = pad_sequence([row.is_image for row in rows], batch_first=True, padding_value=False)
        inputs = {"input_ids": input_ids, "is_image": is_image, "lengths": lengths}
        with_image = [row for row in rows if row.image]
        distinct = {id(row.image): row for row in with_image}
        if distinct:
            inputs |= self.collate_images([row.image for row in distinct.values()])
        if len(distinct) < len(with_image):
            counts = [int(row.is_image.sum()) for row in distinct.values()]
            place = dict(zip(distinct, torch.split(torch.arange(sum(counts)), counts), strict=True))
            inputs["feature_rows"] = torch.cat([place[id(row.image)] for row in with_image])
        tokens = int(lengths.sum())
        return Batch(inputs, len(rows), tokens, input_ids.numel() - tokens, sum(row.truncated for row in rows))


def put_features(embeddings: Tensor, is_image: Tensor, features: Tensor, feature_rows: Tensor | None = None) -> Tensor:
    """Embeddings (n, length, dim) with `features` (n_image_tokens, dim) in the places that `is_image` marks.

    Where rows share images, `features` are those of the distinct ones, and `feature_rows` says which go where.
    """
    features = features.to(embeddings.device, embeddings.dtype)
    if feature_rows is not None:
        features = features[feature_rows.to(embeddings.device)]
    return embeddings.masked_scatter(is_image.unsqueeze(-1), features)
