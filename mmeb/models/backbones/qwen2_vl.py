"""Qwen2-VL and Qwen2.5-VL: a tower for any resolution before a decoder with rotary positions on three axes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLModel, Qwen2VLImageProcessorPil, Qwen2VLModel

from mmeb.errors import MmebError
from mmeb.models.backbones.base import EncodedRow
from mmeb.models.backbones.library import LibraryBackbone
from mmeb.models.base import Batch
from mmeb.models.checkpoints.checkpoint import Checkpoint

Positions = Literal["1d", "2d"]

MAX_ASPECT = 200  # the processor refuses longer images


class Qwen2VLBackbone(LibraryBackbone):
    """`positions` is "1d" (every token one further, on all axes alike) or "2d" (image tokens by row and column).

    `min_pixels` and `max_pixels` bound an image's area after resizing; None is the checkpoint's own bound.
    """

    model_class = Qwen2VLModel
    model_type = "qwen2_vl"
    processor_class = Qwen2VLImageProcessorPil
    image_token = "<|image_pad|>"
    image_shape = "image_grid_thw"
    layouts = (
        {"model": ""},
        {"model": "language_model", "visual": "visual"},  # up to transformers 4.51
    )

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        positions: Positions = "1d",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(checkpoint, **kwargs)
        self.positions = positions
        size = self.processor.size
        low, high = min_pixels or size.shortest_edge, max_pixels or size.longest_edge
        if low > high:
            raise MmebError(f"min_pixels is {low}, above max_pixels, {high}: give a smaller one.")
        self.processor.size = type(size)(shortest_edge=low, longest_edge=high)

    def process(self, image: Image.Image) -> dict[str, Tensor]:
        size = _within_aspect(image.size)
        made = self.processor(image if size == image.size else image.resize(size), return_tensors="pt")
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"][0]}

    def n_image_tokens(self, size: tuple[int, int]) -> int:
        width, height = _within_aspect(size)
        patches: int = self.processor.get_number_of_image_patches(height, width)
        return int(patches // self.processor.merge_size**2)

    def collate(self, rows: Sequence[EncodedRow]) -> Batch:
        """With 2-D positions and an image, `inputs` holds `position_ids` int64 (3, n, length) too."""
        batch = super().collate(rows)
        if self.positions == "1d" or "image_grid_thw" not in batch.inputs:
            return batch
        grids = torch.stack([row.image["image_grid_thw"] for row in rows if row.image])  # shared or not, one a row
        position_ids, _ = self.module.get_rope_index(batch.inputs["input_ids"], batch.inputs["is_image"].int(), grids)
        return replace(batch, inputs=batch.inputs | {"position_ids": position_ids})

    def image_features(self, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        pixels, grids = inputs["pixel_values"], inputs["image_grid_thw"]
        features: Sequence[Tensor] = self.module.get_image_features(pixels, grids).pooler_output
        return features


class Qwen25VLBackbone(Qwen2VLBackbone):
    model_class = Qwen2_5_VLModel
    model_type = "qwen2_5_vl"


def _within_aspect(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) with the short side raised where the long one is over 200 times as long."""
    shortest = -(-max(size) // MAX_ASPECT)
    return max(size[0], shortest), max(size[1], shortest)
