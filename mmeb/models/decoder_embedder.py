"""What VLM2Vec and E5-V share: a decoder that reads a prompt and an image, pooled at its last token."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models import lora
from mmeb.models.backbones.base import Backbone
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.models.checkpoint import Checkpoint
from mmeb.models.pooling import last_token

# The side in pixels to which every image is stretched before the backbone's own processing.
IMAGE_SIDES = {"high": 1344, "mid": 672, "low": 128}
# Beside these: "none" keeps an image's size; "dynamic" too, but for images under 28 pixels on a side (V2.0's rule).
IMAGE_RESOLUTIONS = (*IMAGE_SIDES, "none", "dynamic")
DYNAMIC_LEAST, DYNAMIC_SIDE = 28, 56

# An option's default and the words that it may be; no words: a whole number above 0, or None where that is the default.
Options = Mapping[str, tuple[str | int | None, tuple[str, ...]]]

SHARED_OPTIONS: Options = {
    "max_length": (None, ()),  # tokens of a row; None: as many as the backbone takes
    "lora": ("merge", ("merge", "keep")),  # an adapter added to the weights, as the reference scores, or kept beside
}


class DecoderEmbedder(EmbeddingModel):
    """A vision-language decoder as an embedder; a subclass says which one, and what an item's prompt is.

    `options` are the adapter's own beside the shared ones; `backbone_options` names those that its backbone takes.
    """

    backbone_class: ClassVar[type[Backbone]]
    renames: ClassVar[lora.Renames] = ()
    prompt_version: ClassVar[str]
    options: ClassVar[Options]
    backbone_options: ClassVar[Sequence[str]] = ()

    def __init__(self, checkpoint: Checkpoint, backbone: Backbone, settings: Mapping[str, str | int | None]) -> None:
        self.checkpoint, self.backbone, self.settings = checkpoint, backbone, settings
        self.name, self.dim, self.module = checkpoint.name, backbone.dim, backbone.module
        self.resolution = str(settings.get("image_resolution", "none"))
        weight = next(self.module.parameters())
        self.device, self.dtype = weight.device, weight.dtype
        self._length = lru_cache(maxsize=1 << 16)(self._count)

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        """A whole model, or a LoRA over `checkpoint.base`, whose tokenizer and processor then serve too."""
        settings = parse(cls.adapter, {**SHARED_OPTIONS, **cls.options}, options)
        chosen = {name: settings[name] for name in ("max_length", *cls.backbone_options)}
        backbone = cls.backbone_class(checkpoint.base or checkpoint, device=device, dtype=dtype, **chosen)
        if checkpoint.base is not None:
            lora.attach(backbone.module, checkpoint.path, cls.renames, merge=settings["lora"] == "merge")
        return cls(checkpoint, backbone, settings)

    @abstractmethod
    def prompt(self, item: Item) -> str:
        """What the backbone reads, with `<|image_1|>` where the image stands."""

    def preprocess(self, items: Sequence[Item]) -> Batch:
        return self.backbone.collate([self.backbone.encode(self.prompt(item), self._image(item)) for item in items])

    def embed(self, batch: Batch) -> Tensor:
        return last_token(self.backbone.forward(batch.inputs), batch.inputs["lengths"])

    def cost(self, item: Item) -> int:
        return self._length(item)

    def group(self, item: Item) -> Hashable:
        return super().group(item), self.backbone.group(self._length(item))

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            "adapter": self.adapter,
            **self.checkpoint.provenance,
            "dtype": str(self.dtype).removeprefix("torch."),
            "prompt": self.prompt_version,
            "pooling": "last token after the final norm",
            "options": dict(self.settings) | {"max_length": self.backbone.max_length},
        }

    def _image(self, item: Item) -> Image.Image | None:
        """The image as stored, stretched in its own mode: a palette is resampled otherwise than RGB."""
        if item.image is None:
            return None
        image = item.image.decode()
        size = stretched(image.size, self.resolution)
        return image if size == image.size else image.resize(size)

    def _count(self, item: Item) -> int:
        if item.image is None:
            return self.backbone.n_tokens(self.prompt(item), None)
        side = IMAGE_SIDES.get(self.resolution)
        size = (side, side) if side else stretched(item.image.size(), self.resolution)
        return self.backbone.n_tokens(self.prompt(item), size)


def stretched(size: tuple[int, int], resolution: str) -> tuple[int, int]:
    """(width, height) to which an image is stretched, whatever its aspect."""
    if resolution == "dynamic":
        return (DYNAMIC_SIDE, DYNAMIC_SIDE) if min(size) < DYNAMIC_LEAST else size
    side = IMAGE_SIDES.get(resolution)
    return (side, side) if side else size


def parse(adapter: str, known: Options, given: Mapping[str, str]) -> dict[str, str | int | None]:
    """The adapter's settings: its defaults under what the user gave.

    Raises MmebError for an option that the adapter lacks, and for a value that the option can't be.
    """
    for name in given:
        if name not in known:
            raise MmebError(f"{adapter} has no option {name}: it has {', '.join(known)}.")
    settings: dict[str, str | int | None] = {name: default for name, (default, _) in known.items()}
    for name, value in given.items():
        words = known[name][1]
        if value not in words if words else not (value.isdecimal() and int(value) > 0):
            raise MmebError(f"{name}={value} is none of {', '.join(words) or 'the whole numbers above 0'}.")
        settings[name] = value if words else int(value)
    return settings
