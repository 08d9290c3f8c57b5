"""SigLIP and SigLIP 2, fixed resolution and NaFlex, as the transformers library has them."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor
from transformers import Siglip2Model as LibrarySiglip2
from transformers import SiglipModel as LibrarySiglip

from mmeb.errors import MmebError
from mmeb.models.adapters.dual_encoder import LibraryDualEncoder, Texts
from mmeb.models.checkpoints.checkpoint import Checkpoint


class SiglipModel(LibraryDualEncoder):
    adapter = "siglip"
    # SigLIP 2 of fixed resolution goes by the first name too; NaFlex alone has the second class.
    model_classes: ClassVar = {"siglip": LibrarySiglip, "siglip2": LibrarySiglip2}

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        model = super().load(checkpoint, device=device, dtype=dtype, options=options)
        if model.tokenizer.eos_token_id is None or model.tokenizer.pad_token_id is None:
            raise MmebError(f"The tokenizer of {checkpoint.source} has no end or pad token: it is of another model.")
        return model

    @staticmethod
    def sizes(config: Any, options: Any, processor: Any) -> tuple[int, int, int]:
        text, vision = config.text_config, config.vision_config
        patches = getattr(processor, "max_num_patches", None) or (vision.image_size // vision.patch_size) ** 2
        return getattr(text, "projection_size", None) or text.hidden_size, text.max_position_embeddings, patches

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        return dict(self.processor(images=list(images), return_tensors="pt"))

    def tokenize(self, texts: Sequence[str]) -> Texts:
        """Lower case, no start token, an end token, padded to the context length: as both were trained.

        The pooled state is that of the last column, so padding to the longest text would pool another one. Lowered
        here since the published SigLIP 2 checkpoints name a tokenizer that does not.
        """
        ids = self.tokenizer([text.lower() for text in texts], add_special_tokens=False, verbose=False).input_ids
        kept = [[*row[: self.context - 1], self.tokenizer.eos_token_id] for row in ids]
        rows = torch.full((len(kept), self.context), self.tokenizer.pad_token_id)
        for row, tokens in zip(rows, kept, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        return Texts(rows, sum(map(len, kept)), sum(len(row) >= self.context for row in ids))

    def text_length(self, text: str) -> int:
        return self.context

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        # The NaFlex tower wants a mask and the shape in patches of every image beside its pixels.
        extra = {name: inputs[name] for name in ("pixel_attention_mask", "spatial_shapes") if name in inputs}
        pixels = inputs["pixel_values"].to(self.dtype)
        features: Tensor = self.module.get_image_features(pixel_values=pixels, **extra).pooler_output
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        features: Tensor = self.module.get_text_features(input_ids=ids).pooler_output
        return features
