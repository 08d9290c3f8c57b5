"""E5-V: LLaVA-NeXT on Llama-3, asked to sum up text, image or both in one word."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from mmeb.data.item import Item
from mmeb.models.adapters.decoder_embedder import DecoderEmbedder, DecoderOptions
from mmeb.models.backbones.llava_next import LlavaNextBackbone
from mmeb.tasks import PLACEHOLDER, Modality

# Source: E5-V's model card and paper; the prompt for both is their sum, as the MMEB authors use it.
CHAT = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n \n"
QUESTIONS = {
    Modality.TEXT: "{text}\nSummary above sentence in one word: ",
    Modality.IMAGE: "{image}\nSummary above image in one word: ",
    Modality.IMAGE_TEXT: "{image}\n{text}\nSummary above image and text in one word: ",
}


@dataclass(frozen=True)
class E5VOptions(DecoderOptions):
    """`text` is the item's text alone, or with MMEB's instruction in front."""

    text: Literal["plain", "instruction"] = "plain"


class E5VModel(DecoderEmbedder):
    """Without MMEB's instructions by default: the model was trained on captions and never saw any."""

    adapter = "e5v"
    backbone_class = LlavaNextBackbone
    capabilities = replace(DecoderEmbedder.capabilities, image_tower=("vision_tower",))
    prompt_version = "e5v-1"
    options_class = E5VOptions
    options: E5VOptions

    @classmethod
    def render(cls, item: Item, options: Any) -> str:
        text = item.text if options.text == "plain" else f"{item.instruction} {item.text}".strip()
        kind = Modality.TEXT if item.image is None else Modality.IMAGE_TEXT if text else Modality.IMAGE
        return CHAT.format(QUESTIONS[kind].format(image=PLACEHOLDER, text=text))
