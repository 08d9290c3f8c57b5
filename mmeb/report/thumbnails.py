"""Small pictures that live inside a page."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from mmeb.data.images import ImageRef
from mmeb.errors import MmebError

SIDE = 224  # pixels of the longer side: twice what a card on a phone shows, so sharp on dense screens
_QUALITY = 60


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI, with its size in pixels; no URI, but a `problem`, where it can't be decoded."""

    name: str
    uri: str | None = None
    width: int = 0
    height: int = 0
    problem: str = ""


def thumbnail(image: ImageRef, side: int = SIDE) -> Thumbnail:
    """A picture of at most `side` pixels, as the model saw it: RGB, no EXIF turn."""
    try:
        small = image.rgb()
    except MmebError as error:
        return Thumbnail(image.key, problem=str(error))
    original = small.size
    small.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(image.key, uri, *original)
