"""One object in a picture, and how it is drawn."""

from dataclasses import dataclass

import numpy as np

from mmeb.demo.canvas import COLORS, Canvas, Rgb, blend, shade
from mmeb.demo.objects import OBJECTS


@dataclass(frozen=True)
class Thing:
    """One object in a picture: centre and half its width as parts of the picture's shorter side; angle in degrees."""

    name: str
    color: str
    x: float
    y: float
    size: float
    angle: float = 0.0

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels of a picture of this size, with a little room."""
        x, y, reach = self.x * width, self.y * height, self.size * min(width, height) * 1.08
        return max(0, int(x - reach)), max(0, int(y - reach)), min(width, int(x + reach)), min(height, int(y + reach))


def draw_thing(canvas: Canvas, thing: Thing, color: Rgb | None = None, *, sketch: Rgb | None = None) -> None:
    """Draw a thing; `color` replaces that of its name; a sketch is outlines, thinly filled, on paper of that colour."""
    main = color or COLORS[thing.color]
    radians = np.radians(thing.angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    scale = thing.size * min(canvas.width, canvas.height)
    centre = np.array([thing.x * canvas.width, thing.y * canvas.height])
    shades = {"main": main, "dark": shade(main, 0.68), "light": shade(main, 1.45)}
    for name, points in OBJECTS[thing.name]:
        placed = points @ turn * scale + centre
        if sketch:
            canvas.polygon(placed, blend(sketch, main, 0.45), shade(main, 0.6))
        else:
            canvas.polygon(placed, shades.get(name) or COLORS[name], shade(main, 0.45))
