"""Phi-3.5-V: the library's Phi-3 decoder behind a CLIP tower and high-definition crops.

The module has the official checkpoint's key names (`model.vision_embed_tokens.img_processor…`, `glb_GN`, `sub_GN`,
`img_projection.0/2`), so that published weights and adapters load as they are.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Phi3Config, Phi3Model

from mmeb.errors import MmebError
from mmeb.models.backbones.base import put_features
from mmeb.models.backbones.phi3_v_image import CROP, SIDE

DECODER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "sliding_window",
    "pad_token_id",
    "initializer_range",
    "attention_dropout",
    "resid_pdrop",
)

# CLIP ViT-L/14-336, whose size the official config leaves out; `img_processor.clip_config` may say otherwise.
CLIP_TOWER = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": CROP,
    "patch_size": 14,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}

# The one way of embedding images that published checkpoints use, and that this module knows.
EMBEDDING_LAYOUT = {
    "hd_transform_order": "sub_glb",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}


def decoder_config(config: Mapping[str, Any]) -> Phi3Config:
    """The decoder's part of an official `config.json`; "su" is the older name of long-rope scaling."""
    fields = {name: config[name] for name in DECODER_FIELDS if name in config}
    rope = {"rope_type": "default", **(config.get("rope_scaling") or {})}
    kind = rope.pop("type", rope["rope_type"])
    if kind not in ("default", "su", "longrope"):
        raise MmebError(f"The checkpoint's rope_scaling is {kind!r}; use one with 'su' or 'longrope'.")
    rope |= {"rope_type": "longrope" if kind == "su" else kind, "rope_theta": config.get("rope_theta", 10000.0)}
    if rope["rope_type"] == "longrope":
        rope.setdefault("factor", config["max_position_embeddings"] / config["original_max_position_embeddings"])
    return Phi3Config(**fields, eos_token_id=None, rope_parameters=rope, attn_implementation="sdpa", use_cache=False)


def tower_config(config: Mapping[str, Any]) -> CLIPVisionConfig:
    """The image tower's part of an official `config.json`."""
    layout = config.get("embd_layer", {})
    for name, value in EMBEDDING_LAYOUT.items():
        if layout.get(name) != value:
            found = layout.get(name)
            raise MmebError(f"The checkpoint's embd_layer has {name} = {found!r}; use one with {value!r}.")
    fields = CLIP_TOWER | config["img_processor"].get("clip_config", {})
    return CLIPVisionConfig(**fields, attn_implementation="sdpa")


class ImageEmbedding(nn.Module):
    """Crops in, token embeddings out."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        tower = tower_config(config)
        width, hidden = 4 * tower.hidden_size, config["hidden_size"]
        self.img_processor = nn.ModuleDict({"vision_model": CLIPVisionModel(tower)})
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, width))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.img_projection = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, crops: Tensor, layout: Tensor) -> Tensor:
        """Embeddings (n_image_tokens, hidden) of `crops` (n, 3, 336, 336) in the order of `layout`.

        `layout` is int64 (n_image_tokens,): see `token_layout`; the indices of a batch count the patches of all its
        crops.
        """
        patches = self.patches(crops)
        n, _, width = patches.shape
        merged = patches.view(n, SIDE, 2, SIDE, 2, width).transpose(2, 3).reshape(-1, 4 * width)
        table = torch.cat([merged, self.glb_GN.view(1, -1), self.sub_GN.view(1, -1)])
        embeddings: Tensor = self.img_projection(table)
        return embeddings[layout]

    def patches(self, crops: Tensor) -> Tensor:
        """The tower's patches before its last layer, without CLS token: (n, 576, width)."""
        tower: CLIPVisionModel = self.img_processor["vision_model"]
        hidden: Tensor = tower.pre_layrnorm(tower.embeddings(crops))
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        return hidden[:, 1:]


class Phi3VModule(nn.Module):
    """All weights of Phi-3.5-V but for the language-model head."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = Phi3Model(decoder_config(config))
        self.model.vision_embed_tokens = ImageEmbedding(config)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """As in the library's own classes: for the layers of the decoder and of the tower alike."""
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs)

    def forward(
        self,
        input_ids: Tensor,
        is_image: Tensor,
        lengths: Tensor,
        crops: Tensor | None = None,
        layout: Tensor | None = None,
        feature_rows: Tensor | None = None,
    ) -> Tensor:
        """The last hidden states after the final norm, (n, length, hidden).

        `input_ids` and `is_image` are (n, length), padded on the right behind `lengths` (n,) tokens; `crops` and
        `layout` are what `ImageEmbedding.forward` takes, for the batch's distinct images in order; `feature_rows`
        (n_image_tokens,) says which of their features each image token takes, where rows share an image.
        """
        embeddings = self.model.embed_tokens(input_ids.clamp_min(0))
        if crops is not None:
            features = self.model.vision_embed_tokens(crops, layout)
            embeddings = put_features(embeddings, is_image, features, feature_rows)
        window = self.model.config.original_max_position_embeddings
        if embeddings.shape[1] <= window:
            return self.decode(embeddings)
        # The decoder chooses long or short rope factors once for the full batch: each kind gets its own pass.
        is_long = lengths > window
        hidden = torch.zeros_like(embeddings)
        for rows, length in ((~is_long, window), (is_long, embeddings.shape[1])):
            if rows.any():
                hidden[rows, :length] = self.decode(embeddings[rows, :length])
        return hidden

    def decode(self, embeddings: Tensor) -> Tensor:
        """The decoder alone: causal, so that padding on the right needs no mask."""
        hidden: Tensor = self.model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        return hidden
