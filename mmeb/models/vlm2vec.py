"""VLM2Vec on its four backbones.

The prompt is the string of MMEB-eval itself, byte for byte, newlines included, without chat template; the backbone
puts its own image token in the placeholder's stead. Queries of WebQA and EDIS hold a placeholder but have no image:
the v1 models were trained and scored with it kept, V2.0 never saw it (`bare_placeholder=drop`).
"""

from mmeb.data.item import Item
from mmeb.models.backbones import llava_next, qwen2_vl
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.models.backbones.phi3_v import Phi3VBackbone
from mmeb.models.backbones.qwen2_vl import Qwen2VLBackbone, Qwen25VLBackbone
from mmeb.models.decoder_embedder import IMAGE_RESOLUTIONS, DecoderEmbedder
from mmeb.tasks import PLACEHOLDER

BARE_PLACEHOLDER = {"bare_placeholder": ("keep", ("keep", "drop"))}
QWEN_OPTIONS = ("positions", "min_pixels", "max_pixels")


class VLM2Vec(DecoderEmbedder):
    prompt_version = "vlm2vec-1"

    def prompt(self, item: Item) -> str:
        if item.has_bare_placeholder and self.settings["bare_placeholder"] == "drop":
            return item.prompt.replace(PLACEHOLDER, "").lstrip()
        return item.prompt


class Phi35VModel(VLM2Vec):
    adapter = "phi35v"
    backbone_class = Phi3VBackbone
    backbone_options = ("num_crops",)
    options = {"num_crops": (4, ()), **BARE_PLACEHOLDER}


class LlavaNextModel(VLM2Vec):
    adapter = "llava-next"
    backbone_class = LlavaNextBackbone
    renames = llava_next.RENAMES
    options = {"image_resolution": ("high", IMAGE_RESOLUTIONS), **BARE_PLACEHOLDER}


class Qwen2VLModel(VLM2Vec):
    adapter = "qwen2-vl"
    backbone_class = Qwen2VLBackbone
    renames = qwen2_vl.RENAMES
    backbone_options = QWEN_OPTIONS
    options = {
        "image_resolution": ("high", IMAGE_RESOLUTIONS),
        "positions": ("1d", ("1d", "2d")),
        "min_pixels": (None, ()),
        "max_pixels": (None, ()),
        **BARE_PLACEHOLDER,
    }


class Qwen25VLModel(Qwen2VLModel):
    """No published VLM2Vec stands on Qwen2.5-VL: images at their own size, positions as the base was trained on."""

    adapter = "qwen2.5-vl"
    backbone_class = Qwen25VLBackbone
    options = {
        **Qwen2VLModel.options,
        "image_resolution": ("none", IMAGE_RESOLUTIONS),
        "positions": ("2d", ("1d", "2d")),
    }
