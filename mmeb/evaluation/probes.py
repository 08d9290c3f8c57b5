"""Twenty fixed items that show whether a model embeds as it should; made here, from integers alone."""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmeb.data.item import Item, Role
from mmeb.tasks import Prompt

_REPRESENT = "Represent the given image."
_CHANGES = "Given an image, find a similar everyday image with the described changes:"
_CAPTION = "Find me an everyday image that matches the given caption:"
_QUESTION = "Find a Wikipedia image that answers this question:"
_LONG = (
    "Q: is the photo in color? A: yes, it is in color. Q: how many people are there? A: only two, a man and a child. "
    "Q: what do they hold? A: the man holds a red umbrella, the child a small white dog. Q: is it raining? A: it looks "
    "so, the street is wet and shines. Q: are there any cars? A: one green car is parked at the left. Q: can you see "
    "the sky? A: hardly, there are tall houses on both sides of the street."
)

# name: role, instruction, text, (figure, mode, width, height) of the image; a bare placeholder where that is "bare"
_TABLE: dict[str, tuple[Role, str, str, tuple[str, str, int, int] | str | None]] = {
    "text word": (Role.CANDIDATE, "", "no", None),
    "text circle": (Role.CANDIDATE, "", "A red circle on a white wall.", None),
    "text house": (Role.CANDIDATE, "", "Two dogs run past an old wooden house.", None),
    "text accents": (Role.CANDIDATE, "", "Où est le café « Zur Straße » ? 東京 – 42 %", None),
    "text query": (Role.QUERY, _CAPTION, "A green car is parked in front of a shop.", None),
    "text long": (Role.QUERY, "Represent the given dialogue about an image:", _LONG, None),
    "text bare placeholder": (Role.QUERY, _QUESTION, "How many towers does the bridge have?", "bare"),
    "image rgb": (Role.CANDIDATE, _REPRESENT, "", ("disc", "RGB", 128, 128)),
    "image gray": (Role.CANDIDATE, _REPRESENT, "", ("bars", "L", 97, 131)),
    "image palette": (Role.CANDIDATE, _REPRESENT, "", ("checks", "P", 128, 128)),
    "image alpha": (Role.CANDIDATE, _REPRESENT, "", ("disc", "RGBA", 336, 336)),
    "image cmyk": (Role.CANDIDATE, _REPRESENT, "", ("ramp", "CMYK", 60, 60)),
    "image wide": (Role.CANDIDATE, _REPRESENT, "", ("checks", "RGB", 400, 60)),
    "image tall": (Role.CANDIDATE, _REPRESENT, "", ("bars", "RGB", 60, 400)),
    "both": (Role.QUERY, _CHANGES, "Make the circle blue and add a dog.", ("disc", "RGB", 200, 150)),
    "both, other text": (Role.QUERY, _CHANGES, "Show it at night, from above.", ("disc", "RGB", 200, 150)),
    "both, other image": (Role.QUERY, _CHANGES, "Make the circle blue and add a dog.", ("checks", "RGB", 200, 150)),
    "both gray": (Role.QUERY, "What is in the image?", "Count the bars.", ("bars", "LA", 150, 150)),
    "both candidate": (Role.CANDIDATE, _REPRESENT, "A wall of tiles.", ("checks", "1", 224, 224)),
    "both long": (Role.QUERY, _CHANGES, _LONG, ("ramp", "RGB", 300, 200)),
}

# Two probes that nothing else tells apart.
TEXT_PAIR = ("text circle", "text house")
IMAGE_PAIR = ("image rgb", "image palette")
TEXT_BESIDE_IMAGE_PAIR = ("both", "both, other text")
IMAGE_BESIDE_TEXT_PAIR = ("both", "both, other image")

QUICK = (
    "text circle",
    "text house",
    "image rgb",
    "image palette",
    "both",
    "both, other text",
    "both, other image",
)


@cache
def probes() -> dict[str, Item]:
    """The items by name, in a fixed order."""
    return {name: _item(*row) for name, row in _TABLE.items()}


@cache
def fingerprint() -> str:
    """A hash over the content of all probes, pixels included: reference vectors belong to one such content."""
    digest = hashlib.blake2b(digest_size=8)
    for item in probes().values():
        image = item.image.decode() if item.image else None
        # As drawn: how a library converts a mode to RGB is one of the things that reference vectors must show.
        pixels = b"" if image is None else image.mode.encode() + image.tobytes() + bytes(image.getpalette() or [])
        for part in (item.prompt.encode(), item.instruction.encode(), item.text.encode(), item.role.encode(), pixels):
            digest.update(len(part).to_bytes(8) + part)
    return digest.hexdigest()


def _item(role: Role, instruction: str, text: str, image: tuple[str, str, int, int] | str | None) -> Item:
    prompt = Prompt.compose(instruction, text, placeholder=image is not None, tail="\n" if instruction else "")
    picture = None if isinstance(image, str) or image is None else _draw(*image)
    return Item(str(prompt), instruction, text, picture, role)


def _draw(figure: str, mode: str, width: int, height: int) -> Image.Image:
    """A figure in an image of `mode`, by integer arithmetic: the same pixels under every version of every library."""
    inside = _figure(figure, width, height)
    y, x = np.mgrid[:height, :width]
    shade = (40 + 170 * x // width).astype(np.uint8)
    match mode:
        case "1":
            return Image.fromarray(inside)
        case "L":
            return Image.fromarray(np.where(inside, 230, shade).astype(np.uint8))
        case "LA":
            return _stacked("LA", np.where(inside, 230, shade), np.where(inside, 255, 90))
        case "P":
            image = Image.fromarray((inside + 2 * (y * 3 // height)).astype(np.uint8))
            image.putpalette([250, 250, 240, 200, 30, 30, 40, 160, 60, 30, 60, 200, 240, 200, 40, 20, 20, 20])
            return image
        case "CMYK":
            return _stacked("CMYK", np.where(inside, 220, 20), shade, np.where(inside, 10, 120), 30 * inside)
    red, green, blue = np.where(inside, 210, shade), np.where(inside, 40, 220 * y // height), np.where(inside, 50, 180)
    alpha = [np.where(inside, 255, 60)] if mode == "RGBA" else []
    return _stacked(mode, red, green, blue, *alpha)


def _stacked(mode: str, *bands: NDArray[np.integer]) -> Image.Image:
    return Image.merge(mode, [Image.fromarray(band.astype(np.uint8)) for band in bands])


def _figure(figure: str, width: int, height: int) -> NDArray[np.bool_]:
    """Where the figure is, (height, width)."""
    y, x = np.mgrid[:height, :width]
    side = min(width, height)
    match figure:
        case "disc":
            return np.asarray((2 * x - width) ** 2 + (2 * y - height) ** 2 < (side * 3 // 4) ** 2)
        case "bars":
            return np.asarray((x + y) // 12 % 2 == 0)
        case "checks":
            return np.asarray((x // 16 + y // 16) % 2 == 0)
    return np.asarray(x * height > y * width)
