"""VLM2Vec on its four backbones.

The prompt is the string of MMEB-eval itself, byte for byte, newlines included, without chat template; the backbone
puts its own image token in the placeholder's stead. Queries of WebQA and EDIS hold a placeholder but have no image:
the v1 models were trained and scored with it kept, V2.0 never saw it (`bare_placeholder=drop`).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import PositiveInt

from mmeb.data.item import Item
from mmeb.models.adapters.decoder_embedder import DecoderEmbedder, DecoderOptions, ImageResolution
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.backbones.qwen2_vl import Positions, Qwen2VLBackbone, Qwen25VLBackbone
from mmeb.tasks import PLACEHOLDER


@dataclass(frozen=True)
class VLM2VecOptions(DecoderOptions):
    bare_placeholder: Literal["keep", "drop"] = "keep"


@dataclass(frozen=True)
class Phi35VOptions(VLM2VecOptions):
    num_crops: PositiveInt = 4


@dataclass(frozen=True)
class LlavaNextOptions(VLM2VecOptions):
    image_resolution: ImageResolution = "high"


@dataclass(frozen=True)
class Qwen2VLOptions(VLM2VecOptions):
    image_resolution: ImageResolution = "high"
    positions: Positions = "1d"
    min_pixels: PositiveInt | None = None
    max_pixels: PositiveInt | None = None


@dataclass(frozen=True)
class Qwen25VLOptions(Qwen2VLOptions):
    """No published VLM2Vec stands on Qwen2.5-VL: images at their own size, positions as the base was trained on."""

    image_resolution: ImageResolution = "none"
    positions: Positions = "2d"


class VLM2Vec(DecoderEmbedder):
    prompt_version = "vlm2vec-1"
    options: VLM2VecOptions

    @classmethod
    def render(cls, item: Item, options: Any) -> str:
        if item.has_bare_placeholder and options.bare_placeholder == "drop":
            return item.prompt.replace(PLACEHOLDER, "").lstrip()
        return item.prompt


class Phi35VModel(VLM2Vec):
    adapter = "phi35v"
    capabilities = replace(DecoderEmbedder.capabilities, image_tower=("model.vision_embed_tokens.img_processor",))
    backbone_class = Phi3VBackbone
    backbone_options = ("num_crops",)
    options_class = Phi35VOptions


class LlavaNextModel(VLM2Vec):
    adapter = "llava-next"
    backbone_class = LlavaNextBackbone
    capabilities = replace(DecoderEmbedder.capabilities, image_tower=("vision_tower",))
    options_class = LlavaNextOptions


class Qwen2VLModel(VLM2Vec):
    adapter = "qwen2-vl"
    backbone_class = Qwen2VLBackbone
    backbone_options = ("positions", "min_pixels", "max_pixels")
    capabilities = replace(DecoderEmbedder.capabilities, image_tower=("visual.patch_embed", "visual.blocks"))
    options_class = Qwen2VLOptions


class Qwen25VLModel(Qwen2VLModel):
    adapter = "qwen2.5-vl"
    backbone_class = Qwen25VLBackbone
    options_class = Qwen25VLOptions
