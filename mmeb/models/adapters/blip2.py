"""BLIP-2's contrastive heads, as the transformers library has them: an image is the states of several query tokens.

The model's authors score a text by the query token that is most like it, which no single vector can do for texts that
are not known yet. The mean over the query tokens is the vector whose similarity to a text is the mean of theirs. The
reference implementation of the benchmark takes the first query token, before the projection, and the text's first
token likewise: `pooling=first`, `space=hidden`, `fusion=sum`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2ForImageTextRetrieval, PreTrainedConfig

from mmeb.models.adapters.blip import text_mask
from mmeb.models.adapters.dual_encoder import DualEncoderOptions, LibraryDualEncoder
from mmeb.models.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class Blip2Options(DualEncoderOptions):
    """`pooling` makes one vector of the query tokens; `space` is behind the contrastive projection or before it."""

    pooling: Literal["mean", "first"] = "mean"
    space: Literal["projected", "hidden"] = "projected"


class Blip2Model(LibraryDualEncoder):
    adapter = "blip2"
    model_classes: ClassVar = {"blip-2": Blip2ForImageTextRetrieval}
    options_class = Blip2Options
    options: Blip2Options

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> PreTrainedConfig:
        config = super().read_config(checkpoint)
        # Published configurations call it `qformer_text_input` too; without it a retrieval model could read no text.
        config.qformer_config.use_qformer_text_input = True
        return config

    @staticmethod
    def sizes(config: Any, options: Any, processor: Any) -> tuple[int, int, int]:
        text, vision = config.qformer_config, config.vision_config
        dim = text.hidden_size if options.space == "hidden" else config.image_text_hidden_size
        return dim, text.max_position_embeddings, (vision.image_size // vision.patch_size) ** 2 + 1

    def query_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The states of all query tokens, float32 (n_images, n_query_tokens, dim), not normalised."""
        module = self.module
        image = module.vision_model(pixel_values=inputs["pixel_values"].to(self.dtype)).last_hidden_state
        queries = module.query_tokens.expand(len(image), -1, -1)
        states: Tensor = module.qformer(query_embeds=queries, encoder_hidden_states=image).last_hidden_state
        return self._in_space(states, module.vision_projection)

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The mean is that of the unit vectors: each query token's similarity to a text counts alike."""
        queries = self.query_features(inputs)
        return queries[:, 0] if self.options.pooling == "first" else normalize(queries, dim=-1).mean(dim=1)

    def text_features(self, ids: Tensor) -> Tensor:
        words = self.module.embeddings(input_ids=ids)
        states: Tensor = self.module.qformer(
            query_embeds=words, query_length=0, attention_mask=text_mask(ids, self.tokenizer)
        ).last_hidden_state
        return self._in_space(states[:, 0], self.module.text_projection)

    def _in_space(self, states: Tensor, projection: Any) -> Tensor:
        if self.options.space == "projected":
            states = projection(states.to(projection.weight.dtype))
        return states.float()
