"""CLIP, as the transformers library has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from mmeb.models.checkpoint import Checkpoint
from mmeb.models.dual_encoder import DualEncoder, DualEncoderOptions, Texts
from mmeb.models.options import parse_options
from mmeb.models.processors import image_policy, load_image_processor, load_tokenizer
from mmeb.models.weights import load_pretrained, read_config


@dataclass(frozen=True)
class ClipOptions(DualEncoderOptions):
    """`text_mask=reference` hides the end token, whose state is pooled, as the reference does for CLIP.

    Its pad token is its end token, and the reference masks by token. `causal` needs no mask: padding comes last.
    """

    text_mask: Literal["causal", "reference"] = "causal"


class ClipModel(DualEncoder):
    adapter = "clip"
    options: ClipOptions
    processor: Any

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = parse_options(ClipOptions, options, cls.adapter)
        config = read_config(checkpoint, ("clip",))
        module = load_pretrained(CLIPModel, checkpoint, config, device=device, dtype=dtype)
        vision, text = config.vision_config, config.text_config
        model = cls(
            checkpoint,
            module,
            parsed,
            dim=config.projection_dim,
            context=text.max_position_embeddings,
            image_tokens=(vision.image_size // vision.patch_size) ** 2 + 1,
        )
        model.processor, model.tokenizer = load_image_processor(checkpoint), load_tokenizer(checkpoint)
        return model

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

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self.dtype)
        features: Tensor = self.module.get_image_features(pixel_values=pixels).pooler_output
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        hides_end = self.options.text_mask == "reference"
        mask = (ids != self.tokenizer.pad_token_id).long() if hides_end else None
        features: Tensor = self.module.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features

    @property
    def image_policy(self) -> dict[str, Any]:
        return image_policy(self.processor)
