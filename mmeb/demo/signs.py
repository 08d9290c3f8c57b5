"""Words in the world: signs, memes, and the faces of dice."""

from random import Random

from PIL import Image

from mmeb.demo.canvas import COLORS, Canvas, jitter
from mmeb.demo.scenes import SCENE_NAMES, draw_scene
from mmeb.demo.things import Thing, draw_thing

# Where the dots of a die are, on a grid of 3 × 3 numbered row by row.
_DOTS = {1: (4,), 2: (0, 8), 3: (0, 4, 8), 4: (0, 2, 6, 8), 5: (0, 2, 4, 6, 8), 6: (0, 2, 3, 5, 6, 8)}


def draw_sign(word: str, scene: str, rng: Random) -> Image.Image:
    """A board with a word on a post, somewhere in a place."""
    width, height = rng.randint(130, 180), rng.randint(120, 150)
    canvas = draw_scene(scene, width, height, rng)
    x, y = width * rng.uniform(0.46, 0.54), height * rng.uniform(0.36, 0.48)
    half, tall = width * 0.43, height * 0.16
    canvas.rectangle(x - 3, y, x + 3, height, (110, 104, 96))
    board = rng.choice(["white", "yellow", "blue", "green"])
    ink = COLORS["black"] if board in ("white", "yellow") else COLORS["white"]
    canvas.rectangle(x - half - 2, y - tall - 2, x + half + 2, y + tall + 2, ink)
    canvas.rectangle(x - half, y - tall, x + half, y + tall, COLORS[board])
    canvas.text(x, y, word.upper(), ink, 28, anchor="mm", max_width=half * 1.84)
    return canvas.finish()


def draw_label(word: str, thing: Thing, rng: Random) -> Image.Image:
    """A thing with a word in large letters on a band below it, as a brand on a package."""
    width, height = rng.randint(120, 150), rng.randint(130, 160)
    canvas = Canvas(width, height, jitter((214, 216, 208), rng, 25))
    draw_thing(canvas, thing)
    canvas.rectangle(0, height * 0.68, width, height * 0.95, (250, 250, 250))
    canvas.text(width / 2, height * 0.815, word.capitalize(), (20, 20, 24), 28, anchor="mm", max_width=width * 0.9)
    return canvas.finish()


def draw_meme(top: str, bottom: str, subject: str, color: str, rng: Random) -> Image.Image:
    """White capitals with a black rim over and under a thing."""
    width, height = rng.randint(140, 180), rng.randint(140, 180)
    canvas = draw_scene(rng.choice(SCENE_NAMES), width, height, rng)
    draw_thing(canvas, Thing(subject, color, rng.uniform(0.45, 0.55), 0.53, 0.24))
    for text, y, anchor in ((top, 6, "mt"), (bottom, height - 6, "mb")):
        canvas.text(
            width / 2, y, text.upper(), (255, 255, 255), 25, anchor=anchor, stroke=(0, 0, 0), max_width=width * 0.94
        )
    return canvas.finish()


def draw_die(face: int, rng: Random) -> Image.Image:
    """One die on a table, seen from above and perhaps a little turned."""
    size = rng.randint(96, 130)
    canvas = Canvas(size, size, jitter((46, 112, 72), rng, 14))
    body, dot = rng.choice([("white", "black"), ("red", "white"), ("black", "white"), ("yellow", "black")])
    middle_x, middle_y, half = size * rng.uniform(0.44, 0.56), size * rng.uniform(0.44, 0.56), size * 0.32
    canvas.rectangle(middle_x - half + 4, middle_y - half + 4, middle_x + half + 4, middle_y + half + 4, (30, 60, 40))
    canvas.rectangle(middle_x - half, middle_y - half, middle_x + half, middle_y + half, COLORS[body])
    radius = half * 0.18
    for cell in _DOTS[face]:
        x, y = middle_x + (cell % 3 - 1) * half * 0.58, middle_y + (cell // 3 - 1) * half * 0.58
        canvas.ellipse(x - radius, y - radius, x + radius, y + radius, COLORS[dot])
    return canvas.finish().rotate(rng.choice((0, 0, 90, 180)) + rng.uniform(-12, 12), fillcolor=(46, 112, 72))
