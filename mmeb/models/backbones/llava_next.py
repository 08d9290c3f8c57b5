"""LLaVA-NeXT (LLaVA-1.6): a CLIP tower on "anyres" crops before a Mistral or Llama decoder."""

from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaNextImageProcessorPil, LlavaNextModel
from transformers.image_processing_utils import select_best_resolution

from mmeb.models.backbones.library import LibraryBackbone

_PARTS = {
    "vision_tower.vision_model": "vision_tower",
    "multi_modal_projector": "multi_modal_projector",
    "language_model": "language_model",
}


class EvenPadding(LlavaNextImageProcessorPil):  # type: ignore[misc]
    """The library's processor with the padding of transformers 4, on which the published models were trained.

    A correction of fidelity by a private name: listed in docs/fidelity.md.

    An odd remainder is halved and rounded down on both sides, and the crops lose its last row or column: today's
    library adds that pixel behind.
    """

    def _get_padding_size(
        self, original_resolution: tuple[int, int], target_resolution: tuple[int, int]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        (height, width), (target_height, target_width) = original_resolution, target_resolution
        above, left = (target_height - height) // 2, (target_width - width) // 2
        return (above, above), (left, left)


class LlavaNextBackbone(LibraryBackbone):
    model_class = LlavaNextModel
    model_type = "llava_next"
    processor_class = EvenPadding
    image_token = "<image>"
    image_shape = "image_sizes"
    layouts = (
        {"model": ""},
        {f"model.{place}": name for place, name in _PARTS.items()},  # from transformers 4.52 on
        {place + (".model" if name == "language_model" else ""): name for place, name in _PARTS.items()},  # before
        _PARTS,  # trained without its head
    )

    def process(self, image: Image.Image) -> dict[str, Tensor]:
        made = self.processor(image, return_tensors="pt")
        return {"pixel_values": made["pixel_values"][0], "image_sizes": made["image_sizes"][0]}

    def n_image_tokens(self, size: tuple[int, int]) -> int:
        """Tokens of the global view, and of the crops' rows without padding, each row with a newline.

        The formula is that of `unpad_image` in the library's model, rounding included.
        """
        width, height = size
        vision = self.config.vision_config
        side = vision.image_size // vision.patch_size
        best_height, best_width = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        rows, columns = best_height // vision.image_size * side, best_width // vision.image_size * side
        if width / height > columns / rows:
            rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
        else:
            columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
        return int(side * side + rows * (columns + 1))

    def image_features(self, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
        pixels = inputs["pixel_values"].to(dtype)
        features: Sequence[Tensor] = self.module.get_image_features(pixels, inputs["image_sizes"]).pooler_output
        return features
