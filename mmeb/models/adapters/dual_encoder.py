"""What CLIP, OpenCLIP and SigLIP share: an image tower, a text tower, and a sum for items that have both."""

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import PreTrainedConfig, PreTrainedModel

from mmeb.data.item import Item, distinct_images
from mmeb.models.base import Batch, Capabilities, EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.pretrained import (
    image_policy,
    load_image_processor,
    load_pretrained,
    load_tokenizer,
    read_config,
)
from mmeb.models.checkpoints.resolve import copy_configuration
from mmeb.models.checkpoints.weights import save_weights
from mmeb.tasks import PLACEHOLDER


@dataclass(frozen=True)
class DualEncoderOptions:
    """`text` is the input of the text tower, `fusion` what becomes of an item with image and text.

    `plain` is the item's text alone, `instruction` has its instruction in front; `raw` is the prompt as MMEB-eval
    writes it, with its placeholder, and `strip` the same without. `unit` is the sum of the two unit vectors, `sum` that
    of the towers' raw features, as the reference adds them.
    """

    text: Literal["plain", "instruction", "raw", "strip"] = "plain"
    fusion: Literal["unit", "sum"] = "unit"


@dataclass(frozen=True)
class Texts:
    """Tokenised texts: `ids` int64 (n, length), padded on the right; the number of real tokens and of texts cut."""

    ids: Tensor
    tokens: int
    truncated: int


class DualEncoder(EmbeddingModel):
    """An item's vector is that of its image, of its text, or the normalised sum of both.

    Which text an image-only item has depends on the options: with `text=plain` it has none.
    """

    capabilities = Capabilities(meta=True, training=True, image_tower=("vision_model",))
    prompt_version: ClassVar[str] = "dual-encoder-1"
    options_class: ClassVar[type[DualEncoderOptions]] = DualEncoderOptions

    module: Any  # the library's own class
    tokenizer: Any  # likewise; set by `load`

    def __init__(
        self,
        checkpoint: Checkpoint,
        module: nn.Module,
        options: DualEncoderOptions,
        *,
        dim: int,
        context: int,
        image_tokens: int,
    ) -> None:
        self.checkpoint, self.module, self.options = checkpoint, module, options
        self.name, self.dim, self.context, self.image_tokens = checkpoint.name, dim, context, image_tokens
        weight = next(module.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    @abstractmethod
    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """RGB images as the image tower takes them: tensors by name, each (n_images, …)."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Texts:
        """Texts cut at the context length as the model's own tokenizer does, its end token kept."""

    @abstractmethod
    def text_length(self, text: str) -> int:
        """How many columns the text tower reads for a text."""

    @abstractmethod
    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(n_images, dim) of the tensors that `pixels` made, not normalised."""

    @abstractmethod
    def text_features(self, ids: Tensor) -> Tensor:
        """(n_texts, dim) of the ids that `tokenize` made, not normalised."""

    @property
    @abstractmethod
    def image_policy(self) -> dict[str, Any]:
        """How images are prepared, for the provenance."""

    @classmethod
    def render(cls, item: Item, options: Any) -> str:
        parts = (PLACEHOLDER if item.image is not None else None, text_of(item, options))
        return " + ".join(part for part in parts if part is not None)

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        save_weights(self.module, folder, self.capabilities.weight_files[0], state)
        copy_configuration(self.checkpoint.path, folder)

    def group(self, item: Item) -> Hashable:
        return item.image is not None, text_of(item, self.options) is not None

    def cost(self, item: Item) -> int:
        image = self.image_tokens if item.image is not None else 0
        text = text_of(item, self.options)
        return image + (0 if text is None else self.text_length(text))

    def preprocess(self, items: Sequence[Item]) -> Batch:
        inputs: dict[str, Tensor] = {}
        tokens = padding = truncated = 0
        images = {row: item.image for row, item in enumerate(items) if item.image is not None}
        if images:
            place = {image: number for number, image in enumerate(distinct_images(items))}
            inputs |= {"image_rows": torch.tensor(list(images)), **self.pixels([image.rgb() for image in place])}
            if len(place) < len(images):
                inputs["feature_rows"] = torch.tensor([place[image] for image in images.values()])
            tokens += len(images) * self.image_tokens
        every = {row: text_of(item, self.options) for row, item in enumerate(items)}
        if texts := {row: text for row, text in every.items() if text is not None}:
            tokenized = self.tokenize(list(texts.values()))
            inputs |= {"text_rows": torch.tensor(list(texts)), "input_ids": tokenized.ids}
            tokens += tokenized.tokens
            padding = tokenized.ids.numel() - tokenized.tokens
            truncated = tokenized.truncated
        return Batch(inputs, len(items), tokens, padding, truncated)

    def embed(self, batch: Batch) -> Tensor:
        return normalize(self.features(batch), dim=-1)

    def features(self, batch: Batch) -> Tensor:
        """The fused vectors before they are normalised, float32 (batch.size, dim)."""
        inputs = batch.inputs
        fused = torch.zeros(batch.size, self.dim, device=self.device)
        if "image_rows" in inputs:
            images = self._part(self.image_features(inputs))
            if "feature_rows" in inputs:  # items share an image, which went through the tower once
                images = images[inputs["feature_rows"]]
            fused = fused.index_add(0, inputs["image_rows"], images)
        if "text_rows" in inputs:
            fused = fused.index_add(0, inputs["text_rows"], self._part(self.text_features(inputs["input_ids"])))
        return fused

    @property
    def provenance(self) -> dict[str, Any]:
        return {
            **self.checkpoint.provenance,
            "adapter": self.adapter,
            "dim": self.dim,
            "dtype": str(self.dtype).removeprefix("torch."),
            "prompt": self.prompt_version,
            "max_length": self.context,
            "options": asdict(self.options),
            "image": self.image_policy,
        }

    def _part(self, features: Tensor) -> Tensor:
        features = features.float()
        return normalize(features, dim=-1) if self.options.fusion == "unit" else features


class LibraryDualEncoder(DualEncoder):
    """A model class of transformers with its checkpoint's image processor and tokenizer."""

    model_classes: ClassVar[Mapping[str, type[PreTrainedModel]]]  # by the `model_type` of the configuration
    processor: Any  # the library's own class; set by `load`

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = cls.parse_options(options)
        config = cls.read_config(checkpoint)
        model_class = cls.model_classes[config.model_type]
        module = load_pretrained(model_class, checkpoint, config, device=device, dtype=dtype)
        processor, tokenizer = load_image_processor(checkpoint), load_tokenizer(checkpoint)
        dim, context, image_tokens = cls.sizes(config, parsed, processor)
        model = cls(checkpoint, module, parsed, dim=dim, context=context, image_tokens=image_tokens)
        model.dtype = dtype  # the library keeps some parts in float32
        model.processor, model.tokenizer = processor, tokenizer
        return model

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> PreTrainedConfig:
        return read_config(checkpoint, cls.model_classes)

    @staticmethod
    @abstractmethod
    def sizes(config: Any, options: Any, processor: Any) -> tuple[int, int, int]:
        """The dimension of a vector, the context length, and the tokens of an image."""

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        return {"pixel_values": self.processor(images=list(images), return_tensors="pt")["pixel_values"]}

    def tokenize(self, texts: Sequence[str]) -> Texts:
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.context, return_tensors="pt", verbose=False
        )
        truncated = sum(bool(encoding.overflowing) for encoding in encoded.encodings)
        return Texts(encoded.input_ids, int(encoded.attention_mask.sum()), truncated)

    def text_length(self, text: str) -> int:
        return len(self.tokenizer(text, truncation=True, max_length=self.context).input_ids)

    @property
    def image_policy(self) -> dict[str, Any]:
        return image_policy(self.processor)


def text_of(item: Item, options: DualEncoderOptions) -> str | None:
    """The input of the text tower; None where it would be empty and there is an image instead."""
    match options.text:
        case "plain":
            text = item.text
        case "instruction":
            text = f"{item.instruction} {item.text}".strip()
        case "raw":
            text = item.prompt
        case "strip":
            text = item.prompt.replace(PLACEHOLDER, "").strip()
    return text if text or item.image is None else None
