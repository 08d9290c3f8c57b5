"""What the backbones that the transformers library has in common share: strict loading and tokenising."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import BaseImageProcessor, PreTrainedModel

from mmeb.errors import MmebError
from mmeb.models.backbones.base import Backbone, EncodedImage, EncodedRow, put_features
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.pretrained import (
    image_policy,
    load_image_processor,
    load_pretrained,
    load_tokenizer,
    read_config,
)
from mmeb.models.checkpoints.weights import POSITION_IDS
from mmeb.tasks import PLACEHOLDER

NOT_LOADED = ("lm_head.weight", *POSITION_IDS)  # pooling needs no logits


class LibraryBackbone(Backbone):
    """A model class of transformers, without its head, with its checkpoint's tokenizer.

    Raises MmebError for a missing image processor, and for a tokenizer without the image token, too.
    """

    module: PreTrainedModel
    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    processor_class: ClassVar[type[BaseImageProcessor]]
    image_token: ClassVar[str]
    image_shape: ClassVar[str]  # the input that says how many crops or patches an image has

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
    ) -> None:
        self.config = read_config(checkpoint, [self.model_type])
        self.module = load_pretrained(
            self.model_class, checkpoint, self.config, device=device, dtype=dtype, ignored=NOT_LOADED
        )
        self.dim = self.config.text_config.hidden_size
        self.max_length = max_length or self.config.text_config.max_position_embeddings
        self.tokenizer = load_tokenizer(checkpoint)
        self.image_token_id = self.tokenizer.get_vocab().get(self.image_token)
        if self.image_token_id is None:
            raise MmebError(f"The tokenizer of {checkpoint.source} has no {self.image_token}: it is of another model.")
        # Padding stands behind every real token and is never seen, so any id does where the tokenizer names none.
        self.pad_id = self.tokenizer.pad_token_id or 0
        self.processor = load_image_processor(checkpoint, self.processor_class)

    @property
    def image_policy(self) -> dict[str, Any]:
        return image_policy(self.processor)

    @abstractmethod
    def process(self, image: Image.Image) -> dict[str, Tensor]:
        """The tensors of an RGB image."""

    @abstractmethod
    def n_image_tokens(self, size: tuple[int, int]) -> int:
        """How many image tokens an image of (width, height) pixels takes."""

    @abstractmethod
    def image_features(self, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        """The tower's features of each of a batch's images, (n_tokens, dim)."""

    def collate_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`pixel_values` of all images, one after another, and their shapes (n_images, …) as `image_shape`."""
        return {
            "pixel_values": torch.cat([image["pixel_values"] for image in images]),
            self.image_shape: torch.stack([image[self.image_shape] for image in images]),
        }

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        embeddings = self.module.get_input_embeddings()(inputs["input_ids"])
        if "pixel_values" in inputs:
            features = torch.cat(list(self.image_features(inputs, embeddings.dtype)))
            embeddings = put_features(embeddings, inputs["is_image"], features, inputs.get("feature_rows"))
        # Without positions, the language model counts 0, 1, 2, … (Qwen on all three axes).
        hidden: Tensor = self.module.language_model(
            inputs_embeds=embeddings, position_ids=inputs.get("position_ids"), use_cache=False
        ).last_hidden_state
        return hidden

    def encode_image(self, image: Image.Image) -> EncodedImage:
        return EncodedImage(self.process(to_rgb(image)), self.n_image_tokens(image.size))

    def encode_row(self, prompt: str, image: EncodedImage | None) -> EncodedRow:
        tensors, n_image = ({}, 0) if image is None else (image.tensors, image.n_tokens)
        ids, is_image = self._expand(self._tokenize(prompt), self._image_at(prompt), n_image)
        ids, is_image, truncated = cut_text(ids, is_image, self.max_length)
        return EncodedRow(ids, is_image, tensors, truncated)

    def n_tokens(self, prompt: str, image_size: tuple[int, int] | None) -> int:
        n_text = len(self._tokenize(prompt))
        n_image = 0 if image_size is None else self.n_image_tokens(image_size) - 1  # its placeholder is counted already
        return min(n_text + n_image, self.max_length)

    def _tokenize(self, prompt: str) -> list[int]:
        """Token ids with one image token for the placeholder; an empty sequence becomes one padding token."""
        text = prompt.replace(PLACEHOLDER, self.image_token)
        return list(self.tokenizer(text, verbose=False).input_ids) or [self.pad_id]

    def _image_at(self, prompt: str) -> int:
        """Which of the prompt's image tokens is the placeholder: a user's text may spell the token out before it."""
        return prompt.partition(PLACEHOLDER)[0].count(self.image_token)

    def _expand(self, ids: list[int], image_at: int, n_image: int) -> tuple[Tensor, Tensor]:
        """`ids` with `n_image` copies of the placeholder's image token, and where these stand."""
        row = torch.tensor(ids)
        if not n_image:
            return row, torch.zeros(len(ids), dtype=torch.bool)
        place = int((row == self.image_token_id).nonzero()[image_at])
        repeats = torch.ones(len(ids), dtype=torch.int64)
        repeats[place] = n_image
        is_image = torch.arange(len(ids)) == place
        return row.repeat_interleave(repeats), is_image.repeat_interleave(repeats)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with alpha dropped, and nothing left that would make the library composite it onto white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgb = image.convert("RGB")
    rgb.info.pop("transparency", None)
    return rgb


def cut_text(ids: Tensor, is_image: Tensor, max_length: int) -> tuple[Tensor, Tensor, bool]:
    """At most `max_length` tokens: text goes from the end, image tokens all stay; and whether any went.

    Raises MmebError where the image tokens leave no room for a single token of text.
    """
    excess = len(ids) - max_length
    if excess <= 0:
        return ids, is_image, False
    n_image = int(is_image.sum())
    if n_image >= max_length:
        raise MmebError(
            f"An image takes {n_image} tokens, which leaves no room for text in max_length={max_length}: "
            "raise max_length or lower the image's resolution."
        )
    keep = torch.ones_like(is_image)
    keep[(~is_image).nonzero()[-excess:, 0]] = False
    return ids[keep], is_image[keep], True
