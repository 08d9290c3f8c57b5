"""CLIP, as the transformers library has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor
from transformers import CLIPModel

from mmeb.models.adapters.dual_encoder import DualEncoderOptions, LibraryDualEncoder
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.processors import load_image_processor, load_tokenizer
from mmeb.models.checkpoints.weights import load_pretrained, read_config
from mmeb.models.options import parse_options


@dataclass(frozen=True)
class ClipOptions(DualEncoderOptions):
    """`text_mask=reference` hides the end token, whose state is pooled, as the reference does for CLIP.

    Its pad token is its end token, and the reference masks by token. `causal` needs no mask: padding comes last.
    """

    text_mask: Literal["causal", "reference"] = "causal"


class ClipModel(LibraryDualEncoder):
    adapter = "clip"
    options_class = ClipOptions
    options: ClipOptions

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = parse_options(cls.options_class, options, cls.adapter)
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

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self.dtype)
        features: Tensor = self.module.get_image_features(pixel_values=pixels).pooler_output
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        hides_end = self.options.text_mask == "reference"
        mask = (ids != self.tokenizer.pad_token_id).long() if hides_end else None
        features: Tensor = self.module.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features
