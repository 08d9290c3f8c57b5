"""A drawing surface with colours that have names and edges that are smooth."""

from collections.abc import Sequence
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Rgb = tuple[int, int, int]
Points = NDArray[np.float64]  # (n, 2), x to the right and y down

COLORS: dict[str, Rgb] = {
    "red": (214, 45, 48),
    "orange": (240, 140, 30),
    "yellow": (246, 214, 50),
    "green": (62, 158, 70),
    "blue": (44, 96, 204),
    "purple": (130, 66, 168),
    "pink": (244, 140, 184),
    "brown": (134, 84, 46),
    "white": (246, 246, 240),
    "black": (38, 38, 44),
}
COLOR_NAMES = tuple(COLORS)

_SCALE = 2  # drawn at twice the size, then halved


def shade(color: Rgb, factor: float) -> Rgb:
    """Darker below 1, lighter above: 1.5 is half way to white."""
    if factor <= 1:
        red, green, blue = (round(channel * factor) for channel in color)
    else:
        red, green, blue = (round(channel + (255 - channel) * (factor - 1)) for channel in color)
    return red, green, blue


def blend(ground: Rgb, color: Rgb, share: float) -> Rgb:
    """`ground` seen through `color`, which has this share of the mixture."""
    red, green, blue = (round(g + (c - g) * share) for g, c in zip(ground, color, strict=True))
    return red, green, blue


def jitter(color: Rgb, rng: Random, amount: int = 10) -> Rgb:
    red, green, blue = (max(0, min(255, channel + rng.randint(-amount, amount))) for channel in color)
    return red, green, blue


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, whose font the demo's texts are written in.")
    return font


class Canvas:
    """A picture of `width` × `height` pixels; coordinates and sizes are pixels of the finished picture."""

    def __init__(self, width: int, height: int, background: Rgb) -> None:
        self.width, self.height = width, height
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), background)
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: Points | Sequence[tuple[float, float]], fill: Rgb, outline: Rgb | None = None) -> None:
        flat = (np.asarray(points, dtype=np.float64) * _SCALE).ravel().tolist()
        self._draw.polygon(flat, fill=fill)
        if outline:  # far faster than Pillow's own wide outlines
            self._draw.line([*flat, *flat[:2]], fill=outline, width=_SCALE)

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        if x1 > x0 and y1 > y0:
            self._draw.rectangle(self._scaled(x0, y0, x1, y1), fill=fill)

    def ellipse(self, x0: float, y0: float, x1: float, y1: float, fill: Rgb) -> None:
        self._draw.ellipse(self._scaled(x0, y0, x1, y1), fill=fill)

    def pie(self, box: tuple[float, float, float, float], start: float, end: float, fill: Rgb) -> None:
        """A slice between two angles in degrees, clockwise from three o'clock."""
        self._draw.pieslice(self._scaled(*box), start, end, fill=fill)

    def line(self, points: Sequence[tuple[float, float]], fill: Rgb, width: float = 1) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._draw.line(scaled, fill=fill, width=max(1, round(width * _SCALE)), joint="curve")

    def text(
        self,
        x: float,
        y: float,
        text: str,
        fill: Rgb,
        size: float,
        *,
        anchor: str = "lt",
        stroke: Rgb | None = None,
        max_width: float | None = None,
    ) -> None:
        """One line of text, made smaller where it would be wider than `max_width`; `anchor` as in Pillow."""
        pixels = round(size * _SCALE)
        if max_width is not None and (length := _font(pixels).getlength(text)) > max_width * _SCALE:
            pixels = max(6, int(pixels * max_width * _SCALE / length))
        stroke_width = max(1, pixels // 12) if stroke else 0
        self._draw.text(
            (x * _SCALE, y * _SCALE),
            text,
            fill=fill,
            font=_font(pixels),
            anchor=anchor,
            stroke_width=stroke_width,
            stroke_fill=stroke,
        )

    def finish(self) -> Image.Image:
        return self._image.reduce(_SCALE)

    @staticmethod
    def _scaled(x0: float, y0: float, x1: float, y1: float) -> list[float]:
        return [x0 * _SCALE, y0 * _SCALE, x1 * _SCALE, y1 * _SCALE]
