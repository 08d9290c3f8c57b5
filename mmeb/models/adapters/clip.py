"""CLIP, as the transformers library has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from transformers import CLIPModel

from mmeb.models.adapters.dual_encoder import DualEncoderOptions, LibraryDualEncoder


@dataclass(frozen=True)
class ClipOptions(DualEncoderOptions):
    """`text_mask=reference` hides the end token, whose state is pooled, as the reference does for CLIP.

    Its pad token is its end token, and the reference masks by token. `causal` needs no mask: padding comes last.
    """

    text_mask: Literal["causal", "reference"] = "causal"


class ClipModel(LibraryDualEncoder):
    adapter = "clip"
    model_classes: ClassVar = {"clip": CLIPModel}
    options_class = ClipOptions
    options: ClipOptions

    @staticmethod
    def sizes(config: Any, options: Any, processor: Any) -> tuple[int, int, int]:
        vision = config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return config.projection_dim, config.text_config.max_position_embeddings, patches + 1

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self.dtype)
        features: Tensor = self.module.get_image_features(pixel_values=pixels).pooler_output
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        hides_end = self.options.text_mask == "reference"
        mask = (ids != self.tokenizer.pad_token_id).long() if hides_end else None
        features: Tensor = self.module.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return features
