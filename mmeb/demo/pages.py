"""What is read rather than seen: forms, articles, infographics, charts."""

from dataclasses import dataclass
from random import Random

from PIL import Image

from mmeb.demo.canvas import COLORS, Canvas, jitter, shade
from mmeb.demo.flags import FLAGS, draw_flag
from mmeb.demo.things import Thing, draw_thing

_INK = (24, 24, 30)
_PAPER = ((252, 252, 248), (248, 244, 232), (240, 244, 250))
_FAINT = (176, 176, 176)


def draw_form(title: str, fields: dict[str, str], rng: Random) -> Image.Image:
    """A filled-in form: one `name: value` a line under a title. In grayscale, as a scan is."""
    width, height = rng.randint(150, 180), rng.randint(150, 190)
    canvas = Canvas(width, height, rng.choice(_PAPER))
    canvas.text(width / 2, 8, title.upper(), _INK, 18, anchor="mt", max_width=width * 0.9)
    canvas.line([(10, 32), (width - 10, 32)], _INK, 1.5)
    step = (height - 40) / len(fields)
    for row, (name, value) in enumerate(fields.items()):
        y = 38 + row * step
        canvas.text(12, y, f"{name}:", (90, 90, 96), 13)
        canvas.text(18, y + 15, value, _INK, 24, max_width=width - 30)
    return canvas.finish().convert("L")


def draw_article(subject: str, rng: Random) -> Image.Image:
    """A page of an encyclopedia: the subject as its title, its picture or flag, and lines of text."""
    width, height = rng.randint(140, 170), rng.randint(180, 210)
    canvas = Canvas(width, height, (254, 254, 254))
    canvas.text(8, 8, subject.capitalize(), _INK, 24, max_width=width - 16)
    canvas.line([(8, 36), (width - 8, 36)], _FAINT, 1)
    if subject in FLAGS:
        draw_flag(canvas, subject, width * 0.2, 48, width * 0.6)
    else:
        color = rng.choice(("red", "blue", "green", "orange", "purple"))
        draw_thing(canvas, Thing(subject, color, 0.5, 86 / height, 0.27))
    y = 132.0
    while y < height - 8:
        canvas.line([(8, y), (width - rng.randint(8, 50), y)], _FAINT, 3)
        y += 9
    return canvas.finish()


def draw_infographic(title: str, entries: list[tuple[str, str, int]], rng: Random) -> Image.Image:
    """Icons in a column, each with its number: entries are (object, colour, number)."""
    width, height = rng.randint(120, 150), rng.randint(190, 220)
    ground = jitter(rng.choice([(232, 244, 246), (250, 240, 226), (238, 236, 250)]), rng, 5)
    canvas = Canvas(width, height, ground)
    canvas.rectangle(0, 0, width, 28, shade(ground, 0.45))
    canvas.text(width / 2, 14, title, (255, 255, 255), 16, anchor="mm", max_width=width - 10)
    step = (height - 30) / len(entries)
    for row, (name, color, number) in enumerate(entries):
        y = 30 + (row + 0.5) * step
        draw_thing(canvas, Thing(name, color, 0.28, y / height, 0.19))
        canvas.text(width * 0.74, y, str(number), _INK, 32, anchor="mm")
    return canvas.finish()


@dataclass(frozen=True)
class Bars:
    """A bar chart: colours and values (0 to 100) of its bars, left to right."""

    colors: tuple[str, ...]
    values: tuple[int, ...]

    @property
    def highest(self) -> str:
        return self.colors[self.values.index(max(self.values))]

    @property
    def lowest(self) -> str:
        return self.colors[self.values.index(min(self.values))]


def draw_bars(title: str, bars: Bars, rng: Random) -> Image.Image:
    """The chart with its axis, grid and the value over each bar. As a palette image, as charts on the web are."""
    width, height = rng.randint(150, 200), rng.randint(140, 170)
    canvas = Canvas(width, height, (255, 255, 255))
    canvas.text(width / 2, 6, title, _INK, 14, anchor="mt", max_width=width - 12)
    left, top, bottom = 14.0, 40.0, height - 10.0
    for tick in range(5):
        y = bottom - (bottom - top) * tick / 4
        canvas.line([(left, y), (width - 6, y)], (214, 214, 214), 1)
    step = (width - left - 8) / len(bars.values)
    for position, (color, value) in enumerate(zip(bars.colors, bars.values, strict=True)):
        x, y = left + step * position, bottom - (bottom - top) * value / 100
        canvas.rectangle(x + step * 0.14, y, x + step * 0.86, bottom, jitter(COLORS[color], rng, 6))
        canvas.text(x + step / 2, y - 2, str(value), _INK, 14, anchor="mb")
    canvas.line([(left, top - 8), (left, bottom), (width - 6, bottom)], _INK, 1.5)
    return canvas.finish().quantize(32, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def draw_pie(title: str, slices: list[tuple[str, int]], rng: Random) -> Image.Image:
    """A pie chart; slices are (colour, percent)."""
    size = rng.randint(140, 170)
    canvas = Canvas(size, size, (255, 255, 255))
    canvas.text(size / 2, 6, title, _INK, 14, anchor="mt", max_width=size - 12)
    start = float(rng.randrange(360))
    for color, percent in slices:
        end = start + 3.6 * percent
        canvas.pie((size * 0.16, size * 0.2, size * 0.84, size * 0.88), start, end, jitter(COLORS[color], rng, 6))
        start = end
    return canvas.finish()
