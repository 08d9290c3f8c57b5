"""Small pictures that live inside a page."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from mmeb.data.images.image import ImageRef
from mmeb.errors import MmebError

_LARGEST = 12_000  # bytes, which only a very busy image needs
_TRIES = ((224, 60), (224, 30), (160, 30), (112, 20), (56, 10))
"""Pixels of the longer side and quality, tried in turn until the picture is small enough. 224 pixels are more than a
card shows on a phone, so the picture is sharp on dense screens; 56 × 56 are below the bound even uncompressed."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with its size in pixels; no URI, but a `problem`, where it can't be decoded."""

    uri: str | None = None
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(image: ImageRef) -> Thumbnail:
    """A picture of some kilobytes, as the model saw it: RGB, no EXIF turn."""
    try:
        original = image.rgb()
    except MmebError as error:
        return Thumbnail(problem=str(error))
    for side, quality in _TRIES:
        small = original.copy()
        small.thumbnail((side, side), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        small.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= _LARGEST:
            break
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(uri, *original.size)
