"""BLIP's contrastive heads: the first token of each tower, projected, as the transformers library has it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval, PreTrainedConfig, PreTrainedModel

from mmeb.models.adapters.dual_encoder import LibraryDualEncoder
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.processors import load_image_processor, load_tokenizer
from mmeb.models.checkpoints.weights import load_pretrained, read_config
from mmeb.models.options import parse_options


class BlipFamily(LibraryDualEncoder):
    """What BLIP and BLIP-2 share: their image processor, and BERT's tokenizer and text encoder."""

    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    module: Any  # the library's model, whose parts have no types

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = parse_options(cls.options_class, options, cls.adapter)
        config = cls.read_config(checkpoint)
        module = load_pretrained(cls.model_class, checkpoint, config, device=device, dtype=dtype)
        vision = config.vision_config
        model = cls(
            checkpoint,
            module,
            parsed,
            dim=cls.width(config, parsed),
            context=cls.text_config(config).max_position_embeddings,
            image_tokens=(vision.image_size // vision.patch_size) ** 2 + 1,
        )
        model.dtype = dtype  # the Q-Former may be kept in float32
        model.processor, model.tokenizer = load_image_processor(checkpoint), load_tokenizer(checkpoint)
        return model

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> PreTrainedConfig:
        return read_config(checkpoint, (cls.model_type,))

    @staticmethod
    def width(config: PreTrainedConfig, options: Any) -> int:
        """The size of a vector."""
        size: int = config.image_text_hidden_size
        return size

    @staticmethod
    def text_config(config: PreTrainedConfig) -> Any:
        """The part of the configuration that is the text encoder's."""
        return config.text_config

    def mask(self, ids: Tensor) -> Tensor:
        """1 up to the last real token: a text may spell out `[PAD]` itself. Bidirectional attention needs it."""
        real: Tensor = ids != self.tokenizer.pad_token_id
        return real.flip(1).cummax(1).values.flip(1).long()


class BlipModel(BlipFamily):
    adapter = "blip"
    model_class = BlipForImageTextRetrieval
    model_type = "blip"

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels = inputs["pixel_values"].to(self.dtype)
        states: Tensor = self.module.vision_model(pixel_values=pixels).last_hidden_state
        features: Tensor = self.module.vision_proj(states[:, 0])
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        states: Tensor = self.module.text_encoder(input_ids=ids, attention_mask=self.mask(ids)).last_hidden_state
        features: Tensor = self.module.text_proj(states[:, 0])
        return features
