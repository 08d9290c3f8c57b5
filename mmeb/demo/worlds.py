"""Pictures of things in places: what is in them is known, so that captions, questions and crops follow from it."""

from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from mmeb.demo.canvas import COLOR_NAMES, COLORS, Canvas, jitter, shade
from mmeb.demo.flags import draw_flagpole
from mmeb.demo.objects import OBJECT_NAMES
from mmeb.demo.scenes import SCENE_NAMES, draw_scene
from mmeb.demo.things import Thing, draw_thing

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")

# Where things stand, by their number: (x, y, size), each moved a little by chance.
_PLACES: dict[int, tuple[tuple[float, float, float], ...]] = {
    1: ((0.5, 0.55, 0.3),),
    2: ((0.28, 0.55, 0.22), (0.72, 0.55, 0.22)),
    3: ((0.25, 0.32, 0.19), (0.75, 0.32, 0.19), (0.5, 0.74, 0.19)),
    4: ((0.26, 0.27, 0.19), (0.74, 0.27, 0.19), (0.26, 0.74, 0.19), (0.74, 0.74, 0.19)),
}
# Where the things of a world of four stand.
CORNERS = ("top left", "top right", "bottom left", "bottom right")


@dataclass(frozen=True)
class World:
    """What a picture shows. `scene` is None for a plain ground; `flag` a country whose flag flies there."""

    things: tuple[Thing, ...]
    scene: str | None
    width: int
    height: int
    flag: str | None = None

    def moved(self, rng: Random) -> "World":
        """The same content, put down once more: other places, sizes and proportions of the picture."""
        width, height = _size(rng)
        things = tuple(
            replace(
                thing,
                x=thing.x + rng.uniform(-0.03, 0.03),
                y=thing.y + rng.uniform(-0.03, 0.03),
                size=thing.size * rng.uniform(0.88, 1.12),
                angle=thing.angle + rng.uniform(-6, 6),
            )
            for thing in self.things
        )
        return replace(self, things=things, width=width, height=height)


def _size(rng: Random) -> tuple[int, int]:
    return rng.randint(100, 144), rng.randint(100, 144)


def place(names: list[str], colors: list[str], rng: Random) -> tuple[Thing, ...]:
    """One to four things, at the places that their number has."""
    return tuple(
        Thing(
            name,
            color,
            x + rng.uniform(-0.05, 0.05),
            y + rng.uniform(-0.05, 0.05),
            size * rng.uniform(0.88, 1.15),
            rng.uniform(-8, 8),
        )
        for name, color, (x, y, size) in zip(names, colors, _PLACES[len(names)], strict=True)
    )


def make_world(rng: Random, count: int, scene: str | None = "any", flag: str | None = None) -> World:
    """A world of `count` different things in different colours."""
    things = place(rng.sample(OBJECT_NAMES, count), rng.sample(COLOR_NAMES, count), rng)
    width, height = _size(rng)
    return World(things, rng.choice(SCENE_NAMES) if scene == "any" else scene, width, height, flag)


def group_world(rng: Random, name: str, color: str, count: int, scene: str | None) -> World:
    """A world of `count` equal things."""
    width, height = _size(rng)
    return World(place([name] * count, [color] * count, rng), scene, width, height)


def paint(world: World, rng: Random) -> Image.Image:
    """Draw a world; what it leaves open (the trees of its forest, the tone of its ground) is chance."""
    if world.scene is None:
        canvas = Canvas(world.width, world.height, jitter((222, 222, 216), rng, 24))
    else:
        canvas = draw_scene(world.scene, world.width, world.height, rng)
    if world.flag:
        draw_flagpole(canvas, world.flag, world.width * 0.06, world.height * 0.05, world.width * 0.42)
    for thing in world.things:
        draw_thing(canvas, thing, jitter(COLORS[thing.color], rng, 10))
    return canvas.finish()


def paint_sketch(world: World, rng: Random) -> Image.Image:
    """The world as a drawing in crayon on tinted paper: every part in the tints of one crayon, and no place."""
    paper = jitter(rng.choice([(250, 250, 247), (236, 216, 178), (186, 208, 226), (224, 196, 200)]), rng, 14)
    canvas = Canvas(world.width, world.height, paper)
    for thing in world.things:
        draw_thing(canvas, thing, jitter(COLORS[thing.color], rng, 10), sketch=paper)
    return canvas.finish()


def paint_backdrop(world: World, rng: Random) -> Image.Image:
    """The world before a restless pattern of stripes, the kind of ground that things are seldom seen on."""
    tone = jitter((150, 150, 150), rng, 70)
    canvas = Canvas(world.width, world.height, tone)
    step, other = rng.randint(8, 16), shade(tone, rng.choice((0.75, 1.35)))
    for x in range(-world.height, world.width, step * 2):
        canvas.polygon(
            [(x, 0), (x + step, 0), (x + step + world.height, world.height), (x + world.height, world.height)], other
        )
    for thing in world.things:
        draw_thing(canvas, thing, jitter(COLORS[thing.color], rng, 14))
    return canvas.finish()


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def describe(thing: Thing) -> str:
    """`a red car`."""
    return f"{article(thing.color)} {thing.color} {thing.name}"


def plural(name: str) -> str:
    irregular = {"fish": "fish", "box": "boxes", "dress": "dresses", "butterfly": "butterflies"}
    return irregular.get(name, f"{name}s")


def caption(world: World, rng: Random) -> str:
    """One sentence on all that the picture shows."""
    names = [describe(thing) for thing in world.things]
    if len(names) > 1 and len(set(names)) == 1:
        first = world.things[0]
        what = f"{NUMBERS[len(names)]} {first.color} {plural(first.name)}"
    else:
        rng.shuffle(names)
        what = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    where = f" in the {world.scene}" if world.scene else ""
    start = rng.choice(("", "here is " if len(names) == 1 else "here are ", "a picture of ", "we see "))
    sentence = f"{start}{what}{where}."
    return sentence[0].upper() + sentence[1:]
