"""The things of the demo's world: polygons on a square from -1 to 1, y down, each in a shade of the thing's colour."""

from math import cos, pi, sin

import numpy as np

from mmeb.demo.canvas import Points

_Part = tuple[str, Points]  # a colour's name or a shade of the thing's own: main, dark, light


def _poly(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _box(x0: float, y0: float, x1: float, y1: float) -> Points:
    return _poly((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _symmetric(*right: tuple[float, float]) -> Points:
    """A shape by its right half, from the top to the bottom."""
    points = np.array(right, dtype=np.float64)
    return np.concatenate([points[:1] * (-1, 1), points, points[:0:-1] * (-1, 1)])


def _oval(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Points:
    """An ellipse, or the part of it between two angles in degrees, clockwise from three o'clock."""
    angles = np.radians(np.linspace(start, end, 25))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def _ovals(color: str, x: float, y: float, rx: float, ry: float) -> list[_Part]:
    """Two ellipses, left and right of the middle."""
    return [(color, _oval(-x, y, rx, ry)), (color, _oval(x, y, rx, ry))]


def _ring(x: float, y: float, outer: float, inner: float) -> Points:
    """A circle with a hole, as one path there and back."""
    return np.concatenate([_oval(x, y, outer, outer), _oval(x, y, inner, inner)[::-1]])


def _star(points: int, inner: float) -> Points:
    radii = [1.0, inner] * points
    angles = [pi * step / points - pi / 2 for step in range(2 * points)]
    return np.array([(r * cos(a), r * sin(a)) for r, a in zip(radii, angles, strict=True)])


def _heart() -> Points:
    t = np.linspace(0, 2 * pi, 40)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return np.stack([x, y], axis=1)


def _petals(count: int, radius: float, size: float, y: float) -> list[_Part]:
    angles = [2 * pi * step / count for step in range(count)]
    return [("main", _oval(radius * cos(a), y + radius * sin(a), size, size)) for a in angles]


OBJECTS: dict[str, list[_Part]] = {
    "star": [("main", _star(5, 0.42))],
    "heart": [("main", _heart()), ("light", _oval(-0.45, -0.45, 0.16, 0.2))],
    "moon": [("main", np.concatenate([_oval(0, 0, 0.95, 0.95, 60, 300), _oval(0.35, 0, 0.85, 0.82, 265, 95)]))],
    "ball": [
        ("main", _oval(0, 0, 0.9, 0.9)),
        ("dark", _oval(0, 0, 0.9, 0.28)),
        ("light", _oval(-0.35, -0.5, 0.2, 0.15)),
    ],
    "box": [
        ("main", _box(-0.9, -0.4, 0.5, 0.9)),
        ("light", _poly((-0.9, -0.4), (-0.5, -0.85), (0.9, -0.85), (0.5, -0.4))),
        ("dark", _poly((0.5, -0.4), (0.9, -0.85), (0.9, 0.45), (0.5, 0.9))),
    ],
    "ring": [
        ("main", _ring(0, 0.2, 0.75, 0.5)),
        ("white", _poly((-0.3, -0.95), (0.3, -0.95), (0.45, -0.7), (0, -0.4), (-0.45, -0.7))),
    ],
    "house": [
        ("main", _box(-0.75, -0.1, 0.75, 0.95)),
        ("dark", _poly((-1, -0.1), (0, -0.95), (1, -0.1))),
        ("brown", _box(-0.2, 0.35, 0.2, 0.95)),
        ("yellow", _box(0.35, 0.15, 0.62, 0.45)),
    ],
    "tree": [
        ("brown", _box(-0.14, 0.3, 0.14, 1)),
        ("main", _oval(0, -0.3, 0.75, 0.7)),
        ("light", _oval(-0.25, -0.5, 0.22, 0.2)),
    ],
    "flower": [
        ("green", _box(-0.06, 0.1, 0.06, 1)),
        ("green", _oval(0.3, 0.65, 0.3, 0.12)),
        *_petals(6, 0.42, 0.28, -0.3),
        ("yellow", _oval(0, -0.3, 0.22, 0.22)),
    ],
    "car": [
        ("main", _poly((-0.55, -0.05), (-0.3, -0.5), (0.4, -0.5), (0.65, -0.05))),
        ("main", _box(-1, -0.05, 1, 0.4)),
        ("white", _poly((-0.38, -0.05), (-0.22, -0.38), (0.02, -0.38), (0.02, -0.05))),
        ("white", _poly((0.12, -0.05), (0.12, -0.38), (0.33, -0.38), (0.48, -0.05))),
        *_ovals("black", 0.55, 0.42, 0.24, 0.24),
    ],
    "boat": [
        ("main", _poly((-1, 0.35), (1, 0.35), (0.65, 0.85), (-0.65, 0.85))),
        ("brown", _box(-0.06, -0.95, 0.06, 0.35)),
        ("white", _poly((0.12, -0.85), (0.85, 0.2), (0.12, 0.2))),
        ("white", _poly((-0.12, -0.6), (-0.12, 0.2), (-0.65, 0.2))),
    ],
    "fish": [
        ("dark", _poly((0.45, 0), (1, -0.5), (1, 0.5))),
        ("main", _oval(-0.15, 0, 0.8, 0.48)),
        ("dark", _poly((-0.2, -0.42), (0.25, -0.75), (0.25, -0.38))),
        ("white", _oval(-0.6, -0.1, 0.13, 0.13)),
        ("black", _oval(-0.62, -0.1, 0.06, 0.06)),
    ],
    "bird": [
        ("main", _oval(0, 0.15, 0.62, 0.45)),
        ("main", _oval(-0.5, -0.35, 0.33, 0.32)),
        ("orange", _poly((-0.8, -0.42), (-1.05, -0.28), (-0.8, -0.2))),
        ("dark", _poly((-0.2, 0), (0.95, -0.45), (0.3, 0.4))),
        ("black", _oval(-0.58, -0.42, 0.07, 0.07)),
        ("orange", _box(-0.12, 0.55, -0.04, 0.95)),
        ("orange", _box(0.12, 0.55, 0.2, 0.95)),
    ],
    "cat": [
        ("main", _poly((-0.8, -0.95), (-0.2, -0.5), (-0.75, 0))),
        ("main", _poly((0.8, -0.95), (0.2, -0.5), (0.75, 0))),
        ("main", _oval(0, 0.1, 0.8, 0.72)),
        *_ovals("white", 0.32, -0.05, 0.17, 0.2),
        *_ovals("black", 0.32, -0.03, 0.07, 0.15),
        ("pink", _poly((-0.12, 0.25), (0.12, 0.25), (0, 0.42))),
    ],
    "butterfly": [
        *_ovals("main", 0.5, -0.35, 0.48, 0.5),
        *_ovals("dark", 0.4, 0.45, 0.34, 0.4),
        *_ovals("light", 0.5, -0.35, 0.2, 0.2),
        ("black", _oval(0, 0, 0.09, 0.8)),
    ],
    "mushroom": [
        ("white", _poly((-0.22, 0), (0.22, 0), (0.32, 0.95), (-0.32, 0.95))),
        ("main", _oval(0, 0.1, 0.95, 0.95, 180, 360)),
        ("white", _oval(-0.4, -0.25, 0.16, 0.13)),
        ("white", _oval(0.15, -0.5, 0.16, 0.13)),
        ("white", _oval(0.5, -0.12, 0.14, 0.1)),
    ],
    "apple": [
        *_ovals("main", 0.3, 0.2, 0.55, 0.68),
        ("brown", _poly((-0.05, -0.35), (0.03, -0.95), (0.15, -0.93), (0.06, -0.35))),
        ("green", _oval(0.4, -0.7, 0.3, 0.14)),
        ("light", _oval(-0.48, 0, 0.12, 0.2)),
    ],
    "cup": [
        ("dark", _ring(0.6, 0.1, 0.38, 0.22)),
        ("main", _poly((-0.75, -0.6), (0.6, -0.6), (0.45, 0.85), (-0.6, 0.85))),
        ("light", _oval(-0.075, -0.6, 0.675, 0.16)),
    ],
    "bottle": [
        ("dark", _box(-0.17, -1, 0.17, -0.82)),
        ("main", _symmetric((0.14, -0.82), (0.16, -0.45), (0.42, -0.15), (0.42, 1))),
        ("white", _box(-0.42, 0.1, 0.42, 0.62)),
    ],
    "key": [
        ("main", _ring(-0.6, 0, 0.4, 0.2)),
        ("main", _box(-0.22, -0.1, 0.98, 0.1)),
        ("main", _box(0.55, 0.1, 0.68, 0.42)),
        ("main", _box(0.83, 0.1, 0.98, 0.35)),
    ],
    "umbrella": [
        ("black", _box(-0.05, -0.95, 0.05, 0.8)),
        ("black", np.concatenate([_oval(0.17, 0.75, 0.22, 0.22, 0, 180), _oval(0.17, 0.75, 0.12, 0.12, 180, 0)])),
        ("main", _oval(0, 0.05, 0.98, 0.85, 180, 360)),
        ("dark", _oval(0, 0.05, 0.35, 0.85, 180, 360)),
    ],
    "balloon": [
        ("black", _poly((-0.02, 0.4), (0.02, 0.4), (0.12, 1), (0.08, 1))),
        ("main", _oval(0, -0.3, 0.6, 0.7)),
        ("dark", _poly((-0.12, 0.52), (0.12, 0.52), (0, 0.36))),
        ("light", _oval(-0.25, -0.55, 0.12, 0.2)),
    ],
    "lamp": [
        ("black", _box(-0.06, -0.1, 0.06, 0.8)),
        ("black", _oval(0, 0.85, 0.5, 0.14)),
        ("main", _poly((-0.4, -0.95), (0.4, -0.95), (0.8, 0), (-0.8, 0))),
        ("yellow", _box(-0.8, 0, 0.8, 0.1)),
    ],
    "clock": [
        ("main", _oval(0, 0, 0.95, 0.95)),
        ("white", _oval(0, 0, 0.74, 0.74)),
        ("black", _box(-0.06, -0.6, 0.06, 0.06)),
        ("black", _box(-0.06, -0.06, 0.45, 0.06)),
    ],
    "book": [
        ("main", _poly((-1, -0.6), (0, -0.45), (0, 0.75), (-1, 0.6))),
        ("dark", _poly((1, -0.6), (0, -0.45), (0, 0.75), (1, 0.6))),
        ("white", _poly((-0.85, -0.42), (-0.1, -0.3), (-0.1, 0.5), (-0.85, 0.4))),
        ("white", _poly((0.85, -0.42), (0.1, -0.3), (0.1, 0.5), (0.85, 0.4))),
    ],
    "shirt": [
        ("main", _symmetric((0.45, -0.8), (1, -0.35), (0.72, 0.05), (0.5, -0.15), (0.5, 0.9))),
        ("dark", _oval(0, -0.8, 0.24, 0.2, 0, 180)),
    ],
    "dress": [
        ("main", _symmetric((0.1, -0.7), (0.28, -0.95), (0.34, -0.1), (0.85, 0.95))),
        ("dark", _box(-0.35, -0.16, 0.35, 0.0)),
    ],
    "hat": [
        ("main", _oval(0, 0.45, 1, 0.28)),
        ("main", _poly((-0.5, 0.4), (-0.42, -0.65), (0.42, -0.65), (0.5, 0.4))),
        ("dark", _box(-0.5, 0.1, 0.5, 0.36)),
    ],
    "chair": [
        ("main", _box(-0.6, -1, -0.42, 1)),
        ("main", _box(0.42, 0.1, 0.6, 1)),
        ("dark", _box(-0.6, 0, 0.6, 0.24)),
        ("main", _box(-0.42, -0.9, 0.35, -0.75)),
        ("main", _box(-0.42, -0.5, 0.35, -0.35)),
        ("main", _box(0.25, -0.9, 0.35, 0)),
    ],
    "guitar": [
        ("brown", _box(-0.08, -1, 0.08, 0)),
        ("black", _box(-0.16, -1, 0.16, -0.78)),
        ("main", _oval(0, 0.12, 0.4, 0.32)),
        ("main", _oval(0, 0.58, 0.55, 0.42)),
        ("black", _oval(0, 0.3, 0.16, 0.16)),
    ],
    "rocket": [
        ("orange", _poly((-0.2, 0.6), (0.2, 0.6), (0, 1))),
        ("dark", _poly((-0.3, 0.1), (-0.75, 0.7), (-0.3, 0.6))),
        ("dark", _poly((0.3, 0.1), (0.75, 0.7), (0.3, 0.6))),
        ("main", _poly((0, -1), (0.24, -0.7), (0.34, -0.3), (0.3, 0.6), (-0.3, 0.6), (-0.34, -0.3), (-0.24, -0.7))),
        ("white", _oval(0, -0.2, 0.17, 0.17)),
    ],
    "bell": [
        ("dark", _oval(0, 0.7, 0.2, 0.22)),
        (
            "main",
            np.concatenate(
                [_oval(0, -0.2, 0.55, 0.7, 180, 360), _poly((0.6, 0.35), (0.9, 0.65), (-0.9, 0.65), (-0.6, 0.35))]
            ),
        ),
        ("dark", _box(-0.12, -1, 0.12, -0.85)),
    ],
}
OBJECT_NAMES = tuple(OBJECTS)
