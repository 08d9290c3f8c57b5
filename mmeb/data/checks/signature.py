"""What tells whether two image files show one image: their bytes, their pixels, or what the eye would see."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from mmeb.data.images.image import ImageRef

Hash = NDArray[np.uint64]  # (4,): 255 bits, and one that is never set

NEAR_BITS = 24  # of 256; what recompression and resizing change, 128 being the expectation for unrelated images
_NEAR_LEVELS = 24  # of 255; how much the mean colour of one of 16 x 16 blocks may differ
_FLAT = 4.0  # of 255; an image whose grey levels deviate less has no structure to compare


@dataclass(frozen=True)
class Signature:
    """Of one image: digests of its file and of its RGB pixels, and what stays under recompression and resizing.

    `perceptual` is None for an image without structure, a plain ground say.
    """

    file: bytes
    pixels: bytes
    perceptual: Hash | None
    blocks: NDArray[np.uint8]  # (16, 16, 3), mean colours

    def looks_like(self, other: NDArray[np.uint8]) -> bool:
        """Whether the blocks of another image, whose hash is near, differ in none by more than reencoding would."""
        return int(np.abs(self.blocks.astype(np.int16) - other).max()) <= _NEAR_LEVELS


def sign(image: ImageRef) -> Signature:
    """Read and decode the image once. Raises MmebError where that can't be done."""
    data = image.read()
    rgb = image.rgb(data)
    pixels = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes()).digest()[:16]
    blocks = np.asarray(rgb.resize((16, 16), Image.Resampling.BOX))
    return Signature(hashlib.sha256(data).digest()[:16], pixels, _perceptual_hash(rgb), blocks)


def distance(first: Hash, others: Hash) -> NDArray[np.uint8]:
    """How many bits of `first` (4,) differ from each of `others` (4, n): (n,), at most 255, since one is never set."""
    bits = np.zeros(others.shape[1], np.uint8)
    for word, words in zip(first, others, strict=True):
        bits += np.bitwise_count(word ^ words)
    return bits


def _perceptual_hash(image: Image.Image) -> Hash | None:
    """The signs of the 255 lowest frequencies around their median: the "pHash", with 16 x 16 instead of 8 x 8 of them.

    Pages of a document and charts of a style differ in detail that eight by eight frequencies hardly hold.
    """
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS), np.float32)
    if grey.std() < _FLAT:
        return None
    frequencies = dctn(grey, norm="ortho")[:16, :16].ravel()[1:]  # without the mean
    return np.packbits(frequencies > np.median(frequencies)).view(np.uint64)
