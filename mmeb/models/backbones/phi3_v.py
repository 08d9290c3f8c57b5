"""Phi-3.5-V as a backbone: how its files become our module, and its prompts and images tokens and crops."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map, init_empty_weights
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from mmeb.errors import MmebError
from mmeb.models.backbones.base import Backbone, EncodedImage, EncodedRow
from mmeb.models.backbones.phi3_v_image import TOKENS_PER_CROP, crop_grid, make_crops, n_image_tokens, token_layout
from mmeb.models.backbones.phi3_v_module import Phi3VModule
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.pretrained import check_type, load_tokenizer
from mmeb.models.checkpoints.weights import POSITION_IDS, load_state_dict, load_strict
from mmeb.tasks import PLACEHOLDER

IMAGE_ID = -1  # what the published processor writes where a feature of the image goes
MAX_CROPS = 16
MAX_LENGTH = 256  # tokens of text, with which the published models were trained and scored

EMBEDDINGS = "model.embed_tokens.weight"
EMBEDDINGS_ALIAS = "model.vision_embed_tokens.wte.weight"  # checkpoints have either of the two, or both
NOT_LOADED = ("lm_head.weight", *POSITION_IDS)
REQUIRED = ("hidden_size", "img_processor", "max_position_embeddings", "original_max_position_embeddings")
NOT_SPLIT = ["Phi3DecoderLayer", "ImageEmbedding"]  # what stays on one device when a model is spread over several


class Phi3VBackbone(Backbone):
    """Phi-3.5-V behind its own tokenizer and high-definition cropping.

    `num_crops` is the maximum number of crops of an image, 1 to 16, beside the global view. `max_length` cuts rows of
    text alone; as in the published models' own evaluation, a row with an image is not cut by it. No row grows beyond
    the decoder's positions: there the text is cut, behind the image first, and never the image.

    Raises MmebError for a folder that holds another architecture, and for a missing, unexpected or misshapen weight.
    """

    module: Phi3VModule

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        num_crops: int = 4,
        max_length: int | None = None,
    ) -> None:
        if not 1 <= num_crops <= MAX_CROPS:
            raise MmebError(f"num_crops is {num_crops}; give a number from 1 to {MAX_CROPS}.")
        config = read_config(checkpoint)
        self.module = load_module(config, checkpoint, device, dtype)
        self.dim = config["hidden_size"]
        self.pad_id = 0  # any token does: nothing looks at padding
        self.num_crops = num_crops
        self.positions: int = config["max_position_embeddings"]
        self.window: int = config["original_max_position_embeddings"]
        self.max_length = min(max_length or MAX_LENGTH, self.positions)
        self.tokenizer = load_tokenizer(checkpoint, PreTrainedTokenizerFast)  # `tokenizer.json` as it is
        self.bos = config.get("bos_token_id", 1)

    def encode_image(self, image: Image.Image) -> EncodedImage:
        layout = token_layout(crop_grid(image.size, self.num_crops))
        return EncodedImage({"crops": make_crops(image, self.num_crops), "layout": layout}, len(layout))

    def encode_row(self, prompt: str, image: EncodedImage | None) -> EncodedRow:
        if image is None:
            ids = self._tokenize(prompt)
            kept = torch.tensor(ids[: self.max_length])
            return EncodedRow(kept, torch.zeros_like(kept, dtype=torch.bool), truncated=len(ids) > self.max_length)
        before, after, truncated = self._around(prompt, image.n_tokens)
        row = torch.tensor([*before, *[IMAGE_ID] * image.n_tokens, *after])
        return EncodedRow(row, row == IMAGE_ID, image.tensors, truncated)

    def n_tokens(self, prompt: str, image_size: tuple[int, int] | None) -> int:
        if image_size is None:
            return min(len(self._tokenize(prompt)), self.max_length)
        n_image = n_image_tokens(image_size, self.num_crops)
        before, after, _ = self._around(prompt, n_image)
        return len(before) + n_image + len(after)

    def collate_images(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """`crops` float32 (n_crops, 3, 336, 336), only those that the images have, and `layout` (n_image_tokens,)."""
        layouts, n_crops = [], 0
        for image in images:
            layout = image["layout"]
            layouts.append(torch.where(layout < 0, layout, layout + n_crops * TOKENS_PER_CROP))
            n_crops += len(image["crops"])
        return {"crops": torch.cat([image["crops"] for image in images]), "layout": torch.cat(layouts)}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        hidden: Tensor = self.module(**inputs)
        return hidden

    def group(self, n_tokens: int) -> bool:
        """Rows beyond the original context length see other rope factors, and so take passes of their own."""
        return n_tokens > self.window

    def _tokenize(self, text: str) -> list[int]:
        return [self.bos, *self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids]

    def _around(self, prompt: str, n_image: int) -> tuple[list[int], list[int], bool]:
        """The tokens before and behind an image of `n_image` tokens, and whether they were cut.

        Each part is tokenised by itself, with its own beginning-of-sequence token.
        """
        before, after = (self._tokenize(part) for part in prompt.split(PLACEHOLDER, 1))
        room = self.positions - n_image
        if room < 2:
            raise MmebError(
                f"An image takes {n_image} tokens, which leaves no room for text in {self.positions} positions: "
                "lower num_crops."
            )
        if len(before) + len(after) <= room:
            return before, after, False
        before = before[: room - 1]
        return before, after[: room - len(before)], True


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The checkpoint's `config.json`. Raises MmebError where it is missing or of another model."""
    check_type(checkpoint, ["phi3_v"])
    config: dict[str, Any] = json.loads((checkpoint.path / "config.json").read_text())
    if missing := [name for name in REQUIRED if name not in config]:
        raise MmebError(f"The config.json of {checkpoint.source} lacks {missing[0]}: download it again.")
    return config


def load_module(
    config: Mapping[str, Any], checkpoint: Checkpoint, device: torch.device | str, dtype: torch.dtype
) -> Phi3VModule:
    """The module with the checkpoint's weights in `dtype` on `device` ("auto": spread out; "meta": no weights).

    Parameters are never made twice: the module is built without memory behind it, and the weights are put in its
    place. Its rotary frequencies stay in float32 whatever `dtype` is.
    """
    with init_empty_weights(include_buffers=False):
        module = Phi3VModule(config)
    if device == torch.device("meta"):
        return module.to(device).eval()
    state = {name: weight.to(dtype) for name, weight in load_state_dict(checkpoint.path).items()}
    load_strict(
        module,
        state,
        checkpoint.source,
        rename=lambda name: EMBEDDINGS if name == EMBEDDINGS_ALIAS else name,
        ignored=NOT_LOADED,
        assign=True,
    )
    module.eval()
    if device == "auto":
        dispatch_model(module, infer_auto_device_map(module, no_split_module_classes=NOT_SPLIT, dtype=dtype))
        return module
    return module.to(device)
