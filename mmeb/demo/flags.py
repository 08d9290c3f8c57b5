"""Flags of countries whose flags are bands, discs and crosses."""

from math import cos, pi, sin

import numpy as np

from mmeb.demo.canvas import COLORS, Canvas, Rgb

_TONES: dict[str, Rgb] = {
    **COLORS,
    "gold": (252, 204, 30),
    "sky": (108, 172, 228),
    "navy": (22, 44, 120),
}

# Kind, colours. Bands are equal; a disc lies on a plain ground, a Nordic cross left of the middle.
FLAGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "France": ("vertical", ("navy", "white", "red")),
    "Italy": ("vertical", ("green", "white", "red")),
    "Ireland": ("vertical", ("green", "white", "orange")),
    "Belgium": ("vertical", ("black", "gold", "red")),
    "Nigeria": ("vertical", ("green", "white", "green")),
    "Peru": ("vertical", ("red", "white", "red")),
    "Mali": ("vertical", ("green", "gold", "red")),
    "Germany": ("horizontal", ("black", "red", "gold")),
    "Luxembourg": ("horizontal", ("red", "white", "sky")),
    "Ukraine": ("horizontal", ("blue", "gold")),
    "Poland": ("horizontal", ("white", "red")),
    "Austria": ("horizontal", ("red", "white", "red")),
    "Bulgaria": ("horizontal", ("white", "green", "red")),
    "Estonia": ("horizontal", ("sky", "black", "white")),
    "Gabon": ("horizontal", ("green", "gold", "blue")),
    "Japan": ("disc", ("white", "red")),
    "Bangladesh": ("disc", ("green", "red")),
    "Palau": ("disc", ("sky", "gold")),
    "Sweden": ("nordic", ("blue", "gold")),
    "Finland": ("nordic", ("white", "navy")),
    "Denmark": ("nordic", ("red", "white")),
    "Switzerland": ("cross", ("red", "white")),
    "Vietnam": ("star", ("red", "gold")),
    "Somalia": ("star", ("sky", "white")),
}
COUNTRIES = tuple(FLAGS)


def draw_flag(canvas: Canvas, country: str, x: float, y: float, width: float) -> None:
    """Draw a flag, two thirds as high as wide, with its upper left corner at (x, y)."""
    kind, names = FLAGS[country]
    height = width * 2 / 3
    tones = [_TONES[name] for name in names]
    canvas.rectangle(x - 1, y - 1, x + width + 1, y + height + 1, (70, 70, 70))
    for step, tone in enumerate(tones if kind in ("vertical", "horizontal") else tones[:1]):
        bands = len(tones) if kind in ("vertical", "horizontal") else 1
        if kind == "horizontal":
            canvas.rectangle(x, y + height * step / bands, x + width, y + height * (step + 1) / bands, tone)
        else:
            canvas.rectangle(x + width * step / bands, y, x + width * (step + 1) / bands, y + height, tone)
    middle_x, middle_y, r = x + width / 2, y + height / 2, height * 0.32
    if kind == "disc":
        canvas.ellipse(middle_x - r, middle_y - r, middle_x + r, middle_y + r, tones[1])
    elif kind == "star":
        angles = [pi * step / 5 - pi / 2 for step in range(10)]
        radii = [r if step % 2 == 0 else r * 0.4 for step in range(10)]
        points = [(middle_x + s * cos(a), middle_y + s * sin(a)) for s, a in zip(radii, angles, strict=True)]
        canvas.polygon(np.array(points), tones[1])
    elif kind in ("nordic", "cross"):
        arm = height * 0.1
        at = x + width * 0.38 if kind == "nordic" else middle_x
        reach_x, reach_y = (width, height) if kind == "nordic" else (r, r)
        left, right = max(x, at - reach_x), min(x + width, at + reach_x)
        canvas.rectangle(left, middle_y - arm, right, middle_y + arm, tones[1])
        canvas.rectangle(at - arm, max(y, middle_y - reach_y), at + arm, min(y + height, middle_y + reach_y), tones[1])


def draw_flagpole(canvas: Canvas, country: str, x: float, y: float, width: float) -> None:
    """A flag on a pole that reaches down to the ground."""
    canvas.rectangle(x - 3, y - 3, x, min(canvas.height, y + width * 1.7), (120, 120, 126))
    draw_flag(canvas, country, x + 1, y, width)
