"""High-definition cropping of Phi-3.5-V: an image as crops of 336 pixels, and the order of their tokens.

Follows the Phi-3 report (arXiv:2404.14219, section 6) and the published checkpoint's image processor: an image is
scaled and padded to whole crops, at most `num_crops` of them; a global view goes first.
"""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, pad
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

CROP = 336  # pixels
SIDE = 12  # tokens along a crop's side: patches of 14 pixels, merged 2 × 2
TOKENS_PER_CROP = SIDE * SIDE

# Places in `token_layout` that hold a learned separator, as indices from the end of the feature table.
GLOBAL_SEPARATOR = -2  # between the crops and the global view
LINE_SEPARATOR = -1  # behind every line of tokens


def crop_grid(size: tuple[int, int], num_crops: int) -> tuple[int, int]:
    """(rows, columns) of crops for an image of (width, height) pixels; known without decoding it."""
    across, along = _scaled_size(size, num_crops)
    grid = math.ceil(across / CROP), along // CROP
    return grid if size[0] >= size[1] else grid[::-1]


def n_image_tokens(size: tuple[int, int], num_crops: int) -> int:
    """How many tokens an image of (width, height) pixels becomes, separators included."""
    rows, columns = crop_grid(size, num_crops)
    return (rows * columns + 1) * TOKENS_PER_CROP + 1 + (rows + 1) * SIDE


def hd_transform(image: Image.Image, num_crops: int) -> Image.Image:
    """The image in RGB, scaled (bilinear) and padded with white to whole crops: at least one, at most `num_crops`.

    A tall image is handled lying on its side, so it is padded left and right, a wide one above and below.
    """
    image = image.convert("RGB")
    tall = image.width < image.height
    across, along = _scaled_size(image.size, num_crops)
    if tall:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    image = image.resize((along, across), Image.Resampling.BILINEAR)
    padded_across = math.ceil(across / CROP) * CROP
    padded = Image.new("RGB", (along, padded_across), "white")
    padded.paste(image, (0, (padded_across - across) // 2))
    return padded.transpose(Image.Transpose.TRANSPOSE) if tall else padded


def make_crops(image: Image.Image, num_crops: int) -> Tensor:
    """The global view, then the crops line by line: float32 (1 + rows · columns, 3, 336, 336), normalised as CLIP's.

    The global view is a bicubic interpolation without antialiasing of the normalised tensor, padding included.
    """
    pixels = torch.from_numpy(np.array(hd_transform(image, num_crops))).permute(2, 0, 1).contiguous().float().div_(255)
    pixels.sub_(torch.tensor(OPENAI_CLIP_MEAN)[:, None, None]).div_(torch.tensor(OPENAI_CLIP_STD)[:, None, None])
    global_view = interpolate(pixels[None], size=(CROP, CROP), mode="bicubic")
    rows, columns = pixels.shape[1] // CROP, pixels.shape[2] // CROP
    crops = pixels.view(3, rows, CROP, columns, CROP).permute(1, 3, 0, 2, 4).reshape(-1, 3, CROP, CROP)
    return torch.cat([global_view, crops])


def token_layout(grid: tuple[int, int]) -> Tensor:
    """Which feature stands at each token of an image of (rows, columns) crops: int64 (n_image_tokens,).

    An index counts the merged patches of the global view (0 to 143), then of crop after crop; the separators are
    `GLOBAL_SEPARATOR` and `LINE_SEPARATOR`. Order: all crops as one picture, separator, global view.
    """
    rows, columns = grid
    patches = torch.arange((rows * columns + 1) * TOKENS_PER_CROP).view(-1, SIDE, SIDE)
    picture = patches[1:].view(rows, columns, SIDE, SIDE).transpose(1, 2).reshape(rows * SIDE, columns * SIDE)
    return torch.cat([_lines(picture), torch.tensor([GLOBAL_SEPARATOR]), _lines(patches[0])])


def _lines(tokens: Tensor) -> Tensor:
    """(height, width) tokens, line by line with a separator behind each."""
    return pad(tokens, (0, 1), value=LINE_SEPARATOR).flatten()


def _scaled_size(size: tuple[int, int], num_crops: int) -> tuple[int, int]:
    """(short side, long side) after scaling: the long side is the largest number of crops within `num_crops`."""
    ratio = max(size) / min(size)
    scale = 1
    while (scale + 1) * math.ceil((scale + 1) / ratio) <= num_crops:
        scale += 1
    along = scale * CROP
    return max(1, int(along / ratio)), along
