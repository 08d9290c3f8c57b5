"""What VLM2Vec and E5-V share: a decoder that reads a prompt and an image, pooled at its last token."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from mmeb.data.images.image import ImageRef
from mmeb.data.item import Item, distinct_images
from mmeb.models.backbones.base import Backbone
from mmeb.models.base import Batch, Capabilities, EmbeddingModel
from mmeb.models.checkpoints import lora
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.resolve import copy_configuration
from mmeb.models.checkpoints.weights import save_weights

# The side in pixels to which every image is stretched before the backbone's own processing.
IMAGE_SIDES = {"high": 1344, "mid": 672, "low": 128}

# Beside these: "none" keeps an image's size; "dynamic" too, but for images under 28 pixels on a side (V2.0's rule).
ImageResolution = Literal["high", "mid", "low", "none", "dynamic"]
DYNAMIC_MIN, DYNAMIC_SIDE = 28, 56


class _Lengths(WeakKeyDictionary[Item, int]):
    """Lengths of items that are still about; a copy in another process starts without."""

    def __reduce__(self) -> tuple[type["_Lengths"], tuple[()]]:
        return _Lengths, ()


@dataclass(frozen=True)
class DecoderOptions:
    """What all of these adapters can be told.

    `max_length` bounds the tokens of a row (None: as many as the backbone takes); `lora` adds an adapter to the base's
    weights, as the reference scores, or keeps it beside them.
    """

    max_length: PositiveInt | None = None
    lora: Literal["merge", "keep"] = "merge"


class DecoderEmbedder(EmbeddingModel):
    """A vision-language decoder as an embedder; a subclass says which one, and what an item's prompt is.

    `backbone_options` names the options that its backbone takes.
    """

    capabilities = Capabilities(meta=True, spread=True, training=True, lora=True)
    backbone_class: ClassVar[type[Backbone]]
    backbone_options: ClassVar[Sequence[str]] = ()
    options_class: ClassVar[type[DecoderOptions]]
    prompt_version: ClassVar[str]

    def __init__(self, checkpoint: Checkpoint, backbone: Backbone, options: DecoderOptions) -> None:
        self.checkpoint, self.backbone, self.options = checkpoint, backbone, options
        self.name, self.dim, self.module = checkpoint.name, backbone.dim, backbone.module
        self.resolution: ImageResolution = getattr(options, "image_resolution", "none")
        weights = list(self.module.parameters())
        weight = next((weight for weight in weights if not weight.is_meta), weights[0])  # meta: put off to disk
        self.device, self.dtype = weight.device, weight.dtype
        self._lengths = _Lengths()  # batching asks twice, for cost and group

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        """A full model, or a LoRA over `checkpoint.base`, whose tokenizer and image processor then serve."""
        parsed = cls.parse_options(options)
        settings = {name: getattr(parsed, name) for name in ("max_length", *cls.backbone_options)}
        backbone = cls.backbone_class(checkpoint.base or checkpoint, device=device, dtype=dtype, **settings)
        if checkpoint.base is not None and device != torch.device("meta"):
            lora.attach(backbone.module, checkpoint.path, backbone.layouts, merge=parsed.lora == "merge")
        return cls(checkpoint, backbone, parsed)

    @classmethod
    @abstractmethod
    def render(cls, item: Item, options: Any) -> str:
        """What the backbone reads, with `<|image_1|>` where the image stands."""

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """A LoRA that lies beside the weights is written without them: its configuration names its base."""
        base = self.checkpoint.base or self.checkpoint
        if lora.is_on(self.module):
            lora.save(
                self.module, folder, self.backbone.layouts, base=base.source, base_revision=base.revision, state=state
            )
        else:
            save_weights(self.module, folder, self.capabilities.weight_files[0], state)
        copy_configuration(base.path, folder)

    def preprocess(self, items: Sequence[Item]) -> Batch:
        images = {ref: self.backbone.encode_image(self._image(ref)) for ref in distinct_images(items)}
        rows = [
            self.backbone.encode_row(self.rendered(item), None if item.image is None else images[item.image])
            for item in items
        ]
        return self.backbone.collate(rows)

    def embed(self, batch: Batch) -> Tensor:
        return last_token(self.backbone.forward(batch.inputs), batch.inputs["lengths"]).to(self.device)

    def n_tokens(self, item: Item) -> int:
        length = self._lengths.get(item)
        if length is None:
            length = self._lengths[item] = self.backbone.n_tokens(self.rendered(item), self._image_size(item))
        return length

    def cost(self, item: Item) -> int:
        return self.n_tokens(item)

    def group(self, item: Item) -> Hashable:
        return super().group(item), self.backbone.group(self.n_tokens(item))

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter,
            **self.checkpoint.provenance,
            "dtype": str(self.dtype).removeprefix("torch."),
            "prompt": self.prompt_version,
            "pooling": "last token after the final norm",
            "image": self.backbone.image_policy,
            "options": asdict(self.options) | {"max_length": self.backbone.max_length},
        }

    def _image(self, ref: ImageRef) -> Image.Image:
        """The image as stored, stretched in its own mode: a palette is resampled otherwise than RGB."""
        image = ref.decode()
        size = stretched(image.size, self.resolution)
        return image if size == image.size else image.resize(size)

    def _image_size(self, item: Item) -> tuple[int, int] | None:
        """The size of `_image`, from the file's header at most."""
        if item.image is None:
            return None
        side = IMAGE_SIDES.get(self.resolution)
        return (side, side) if side else stretched(item.image.size(), self.resolution)


def last_token(hidden: Tensor, lengths: Tensor) -> Tensor:
    """The hidden state of each row's last real token, as a float32 unit vector (n, dim).

    `hidden` is (n, length, dim) after the final norm, padded on the right; `lengths` int64 (n,) counts real tokens.
    """
    rows = torch.arange(len(hidden), device=hidden.device)
    return normalize(hidden[rows, lengths.to(hidden.device) - 1].float(), dim=-1)


def stretched(size: tuple[int, int], resolution: ImageResolution) -> tuple[int, int]:
    """(width, height) to which an image is stretched, whatever its aspect."""
    if resolution == "dynamic":
        return (DYNAMIC_SIDE, DYNAMIC_SIDE) if min(size) < DYNAMIC_MIN else size
    side = IMAGE_SIDES.get(resolution)
    return (side, side) if side else size
