"""BLIP's contrastive heads: the first token of each tower, projected, as the transformers library has it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from transformers import BlipForImageTextRetrieval

from mmeb.models.adapters.dual_encoder import LibraryDualEncoder


class BlipModel(LibraryDualEncoder):
    adapter = "blip"
    model_classes: ClassVar = {"blip": BlipForImageTextRetrieval}

    @staticmethod
    def sizes(config: Any, options: Any, processor: Any) -> tuple[int, int, int]:
        vision = config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return config.image_text_hidden_size, config.text_config.max_position_embeddings, patches + 1

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self.dtype)
        states: Tensor = self.module.vision_model(pixel_values=pixels).last_hidden_state
        features: Tensor = self.module.vision_proj(states[:, 0])
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        mask = text_mask(ids, self.tokenizer)
        states: Tensor = self.module.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        features: Tensor = self.module.text_proj(states[:, 0])
        return features


def text_mask(ids: Tensor, tokenizer: Any) -> Tensor:
    """1 up to the last real token: a text may spell out `[PAD]` itself. Bidirectional attention needs it."""
    real: Tensor = ids != tokenizer.pad_token_id
    return real.flip(1).cummax(1).values.flip(1).long()
