"""The places of the demo's world: a sky, a ground and what stands there."""

from dataclasses import dataclass
from random import Random
from typing import Any

from mmeb.demo.canvas import Canvas, Rgb, jitter, shade

# A function that draws onto a canvas by chance, given the y of the horizon in pixels, and its further arguments.
_Feature = tuple[Any, ...]


def _sun(canvas: Canvas, rng: Random, horizon: float, color: Rgb) -> None:
    x, y, r = rng.uniform(0.15, 0.85) * canvas.width, rng.uniform(0.3, 0.6) * horizon, 0.09 * canvas.width
    canvas.ellipse(x - r, y - r, x + r, y + r, color)


def _low_sun(canvas: Canvas, rng: Random, horizon: float) -> None:
    x, r = rng.uniform(0.3, 0.7) * canvas.width, 0.2 * canvas.width
    canvas.ellipse(x - r, horizon - r, x + r, horizon + r, (255, 214, 120))
    canvas.rectangle(0, horizon, canvas.width, canvas.height, (96, 48, 92))


def _dots(
    canvas: Canvas, rng: Random, horizon: float, color: Rgb, count: int, top: float, bottom: float, radius: float
) -> None:
    for _ in range(count):
        x, y = rng.uniform(0, canvas.width), rng.uniform(top, bottom) * canvas.height
        r = radius * canvas.width * rng.uniform(0.6, 1.2)
        canvas.ellipse(x - r, y - r, x + r, y + r, color)


def _peaks(
    canvas: Canvas, rng: Random, horizon: float, color: Rgb, count: int, height: float, snow: bool = False
) -> None:
    for step in range(count):
        x = (step + rng.uniform(0.2, 0.8)) / count * canvas.width
        half, top = canvas.width / count * rng.uniform(0.8, 1.1), horizon * (1 - height * rng.uniform(0.8, 1.1))
        canvas.polygon([(x - half, horizon + 1), (x, top), (x + half, horizon + 1)], jitter(color, rng, 8))
        if snow:
            cap = (horizon - top) * 0.3
            side = half * 0.3
            canvas.polygon([(x - side, top + cap), (x, top), (x + side, top + cap)], (246, 248, 252))


def _hills(canvas: Canvas, rng: Random, horizon: float, color: Rgb) -> None:
    for step in range(3):
        x, r = (step + rng.uniform(0, 1)) / 3 * canvas.width, canvas.width * rng.uniform(0.3, 0.45)
        canvas.ellipse(x - r, horizon - r * 0.5, x + r, horizon + r, shade(color, rng.uniform(0.85, 1)))
    canvas.rectangle(0, horizon + canvas.height * 0.1, canvas.width, canvas.height, color)


def _towers(canvas: Canvas, rng: Random, horizon: float) -> None:
    x = 0.0
    while x < canvas.width:
        width, top = canvas.width * rng.uniform(0.12, 0.2), horizon * rng.uniform(0.15, 0.6)
        tone = rng.randint(90, 150)
        canvas.rectangle(x, top, x + width, horizon, (tone, tone, tone + 14))
        for row in range(3):
            for column in range(2):
                left, up = x + width * (0.2 + 0.4 * column), top + (horizon - top) * (0.12 + 0.28 * row)
                canvas.rectangle(left, up, left + width * 0.2, up + (horizon - top) * 0.13, (250, 226, 130))
        x += width + 1


def _firs(canvas: Canvas, rng: Random, horizon: float) -> None:
    for step in range(8):
        x, w = (step + rng.uniform(0.1, 0.9)) / 8 * canvas.width, canvas.width * 0.09
        base, top = horizon * rng.uniform(1.0, 1.2), horizon * rng.uniform(0.2, 0.45)
        canvas.rectangle(x - w * 0.15, base - 2, x + w * 0.15, base + canvas.height * 0.05, (92, 62, 40))
        canvas.polygon([(x - w, base), (x, top), (x + w, base)], jitter((24, 92, 52), rng, 10))


def _stripes(canvas: Canvas, rng: Random, horizon: float, color: Rgb, count: int) -> None:
    """Lines over the ground that meet far away: furrows, or the middle of a road."""
    middle = canvas.width / 2
    for step in range(count):
        at = (step + 0.5) / count
        left, right = (at - 0.25 / count) * 3 - 1, (at + 0.25 / count) * 3 - 1
        far = middle + (at - 0.5) * canvas.width * 0.5
        points = [
            (far - 1, horizon),
            (far + 1, horizon),
            (right * canvas.width, canvas.height),
            (left * canvas.width, canvas.height),
        ]
        canvas.polygon(points, color)


def _waves(canvas: Canvas, rng: Random, horizon: float, color: Rgb) -> None:
    for step in range(5):
        y = horizon + (canvas.height - horizon) * (step + 0.5) / 5
        for _ in range(3):
            x, w = rng.uniform(0, canvas.width), canvas.width * rng.uniform(0.08, 0.16)
            canvas.line([(x - w, y), (x - w / 2, y - 3), (x, y), (x + w / 2, y - 3), (x + w, y)], color, 1.5)


def _shore(canvas: Canvas, rng: Random, horizon: float, color: Rgb) -> None:
    canvas.rectangle(0, horizon - canvas.height * 0.16, canvas.width, horizon, color)


def _shelves(canvas: Canvas, rng: Random, horizon: float) -> None:
    for row in range(3):
        floor = horizon * (row + 1) / 3
        x = 2.0
        while x < canvas.width - 4:
            width, height = rng.uniform(4, 8), horizon / 3 * rng.uniform(0.55, 0.85)
            canvas.rectangle(x, floor - height, x + width, floor, jitter((150, 90, 70), rng, 70))
            x += width + 1
        canvas.rectangle(0, floor - 3, canvas.width, floor, (92, 58, 32))


def _tiles(canvas: Canvas, rng: Random, horizon: float) -> None:
    step = canvas.width / 8
    for column in range(9):
        canvas.line([(column * step, 0), (column * step, horizon)], (176, 206, 206), 1)
    for row in range(int(horizon / step) + 1):
        canvas.line([(0, row * step), (canvas.width, row * step)], (176, 206, 206), 1)


def _curtains(canvas: Canvas, rng: Random, horizon: float, color: Rgb) -> None:
    for step in range(5):
        w = canvas.width * 0.045
        for left in (step * w, canvas.width - (step + 1) * w):
            canvas.rectangle(left, 0, left + w, canvas.height * 0.85, shade(color, 0.75 + 0.25 * (step % 2)))


def _board(canvas: Canvas, rng: Random, horizon: float, color: Rgb, frame: Rgb) -> None:
    w, h = canvas.width, horizon
    canvas.rectangle(w * 0.12, h * 0.1, w * 0.88, h * 0.75, frame)
    canvas.rectangle(w * 0.15, h * 0.14, w * 0.85, h * 0.71, color)


def _bed(canvas: Canvas, rng: Random, horizon: float) -> None:
    w, h = canvas.width, canvas.height
    canvas.rectangle(w * 0.1, horizon - h * 0.18, w * 0.9, h, (120, 78, 50))
    canvas.rectangle(w * 0.14, horizon + h * 0.02, w * 0.86, h, (238, 226, 236))
    canvas.ellipse(w * 0.18, horizon - h * 0.06, w * 0.48, horizon + h * 0.1, (255, 255, 255))
    canvas.ellipse(w * 0.52, horizon - h * 0.06, w * 0.82, horizon + h * 0.1, (255, 255, 255))


def _arch(canvas: Canvas, rng: Random, horizon: float) -> None:
    w, h = canvas.width, canvas.height
    x = rng.uniform(0.4, 0.6) * w
    canvas.ellipse(x - w * 0.28, h * 0.12, x + w * 0.28, h * 0.98, (206, 214, 196))
    canvas.rectangle(0, h * 0.8, w, h, (58, 50, 46))


@dataclass(frozen=True)
class Scene:
    """A place: colours of its sky (or wall) and ground, how far down the horizon is, and its features in order."""

    sky: Rgb
    ground: Rgb
    horizon: float
    features: tuple[_Feature, ...] = ()


_SKY = (150, 204, 240)
SCENES: dict[str, Scene] = {
    "meadow": Scene(_SKY, (112, 190, 84), 0.55, ((_sun, (255, 226, 90)), (_dots, (250, 240, 120), 14, 0.6, 1, 0.012))),
    "beach": Scene((140, 206, 242), (240, 220, 160), 0.6, ((_sun, (255, 236, 130)), (_shore, (52, 140, 200)))),
    "desert": Scene((250, 216, 150), (222, 168, 92), 0.5, ((_hills, (222, 168, 92)), (_sun, (255, 244, 190)))),
    "sea": Scene((176, 214, 236), (28, 88, 160), 0.4, ((_waves, (190, 220, 240)),)),
    "mountain": Scene((186, 216, 240), (110, 140, 96), 0.7, ((_peaks, (112, 116, 130), 3, 0.8, True),)),
    "forest": Scene((190, 222, 206), (58, 112, 58), 0.62, ((_firs,),)),
    "city": Scene((188, 202, 220), (88, 88, 94), 0.72, ((_towers,),)),
    "road": Scene(_SKY, (96, 98, 102), 0.5, ((_hills, (120, 170, 90)), (_stripes, (96, 98, 102), 1))),
    "snowfield": Scene((206, 218, 232), (246, 248, 252), 0.5, ((_dots, (255, 255, 255), 40, 0, 1, 0.014),)),
    "night sky": Scene((16, 20, 58), (30, 36, 44), 0.86, ((_dots, (250, 246, 210), 36, 0, 0.85, 0.01),)),
    "sunset": Scene((240, 130, 70), (96, 48, 92), 0.62, ((_low_sun,),)),
    "library": Scene((120, 82, 52), (142, 104, 70), 0.75, ((_shelves,),)),
    "kitchen": Scene((222, 240, 238), (170, 136, 104), 0.66, ((_tiles,),)),
    "bedroom": Scene((214, 200, 226), (160, 124, 96), 0.6, ((_bed,),)),
    "theater": Scene((52, 20, 26), (116, 78, 48), 0.82, ((_curtains, (170, 24, 36)),)),
    "classroom": Scene((236, 226, 196), (186, 150, 104), 0.72, ((_board, (34, 84, 62), (150, 104, 62)),)),
    "field": Scene((180, 214, 236), (146, 100, 56), 0.45, ((_stripes, (104, 150, 60), 7),)),
    "cave": Scene((70, 62, 60), (58, 50, 46), 0.8, ((_arch,),)),
    "museum": Scene((240, 238, 230), (200, 190, 176), 0.76, ((_board, (250, 250, 250), (196, 160, 60)),)),
    "volcano": Scene(
        (150, 120, 130),
        (70, 54, 52),
        0.74,
        ((_peaks, (84, 52, 50), 1, 0.7), (_dots, (250, 110, 30), 16, 0.02, 0.35, 0.02)),
    ),
    "swamp": Scene(
        (150, 168, 140), (74, 92, 58), 0.5, ((_waves, (128, 156, 96)), (_dots, (92, 140, 70), 16, 0.55, 1, 0.03))
    ),
}
SCENE_NAMES = tuple(SCENES)


def draw_scene(name: str, width: int, height: int, rng: Random) -> Canvas:
    """A canvas with the place on it; where exactly things stand is chance."""
    scene = SCENES[name]
    canvas = Canvas(width, height, jitter(scene.sky, rng, 8))
    horizon = height * (scene.horizon + rng.uniform(-0.05, 0.05))
    canvas.rectangle(0, horizon, width, height, jitter(scene.ground, rng, 8))
    for draw, *arguments in scene.features:
        draw(canvas, rng, horizon, *arguments)
    return canvas
