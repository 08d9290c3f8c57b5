"""SigLIP and SigLIP 2, fixed resolution and NaFlex, as the transformers library has them."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from transformers import Siglip2Model as LibrarySiglip2
from transformers import SiglipModel as LibrarySiglip

from mmeb.errors import MmebError
from mmeb.models.adapters.dual_encoder import LibraryDualEncoder, Texts
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.processors import load_image_processor, load_tokenizer
from mmeb.models.checkpoints.weights import load_pretrained, read_config
from mmeb.models.options import parse_options

# SigLIP 2 of fixed resolution goes by the first name too; NaFlex alone has a class of its own.
MODEL_CLASSES = {"siglip": LibrarySiglip, "siglip2": LibrarySiglip2}


class SiglipModel(LibraryDualEncoder):
    adapter = "siglip"

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = parse_options(cls.options_class, options, cls.adapter)
        config = read_config(checkpoint, MODEL_CLASSES)
        module = load_pretrained(MODEL_CLASSES[config.model_type], checkpoint, config, device=device, dtype=dtype)
        processor, tokenizer = load_image_processor(checkpoint), load_tokenizer(checkpoint)
        if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
            raise MmebError(f"The tokenizer of {checkpoint.source} has no end or pad token: it is of another model.")
        patches = getattr(processor, "max_num_patches", None)
        vision, text = config.vision_config, config.text_config
        model = cls(
            checkpoint,
            module,
            parsed,
            dim=getattr(text, "projection_size", None) or text.hidden_size,
            context=text.max_position_embeddings,
            image_tokens=patches or (vision.image_size // vision.patch_size) ** 2,
        )
        model.processor, model.tokenizer = processor, tokenizer
        return model

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
