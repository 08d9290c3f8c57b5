"""The four grounding tasks: a picture of four things, and the piece of it that an expression means."""

from random import Random

from PIL import Image

from mmeb.demo.canvas import COLOR_NAMES
from mmeb.demo.example import Example, Maker, Picture, Side, picture_query
from mmeb.demo.objects import OBJECT_NAMES
from mmeb.demo.scenes import SCENE_NAMES
from mmeb.demo.things import Thing
from mmeb.demo.worlds import CORNERS, World, make_world, paint, place


def _scene(rng: Random) -> tuple[World, Image.Image]:
    world = make_world(rng, 4)
    world = World(world.things, world.scene, world.width + 40, world.height + 40)
    return world, paint(world, rng)


def _twins(rng: Random) -> tuple[World, Image.Image]:
    """Four things, of which two pairs are of one kind and differ in colour."""
    names = rng.sample(OBJECT_NAMES, 2) * 2
    rng.shuffle(names)
    width, height = rng.randint(140, 184), rng.randint(140, 184)
    world = World(place(names, rng.sample(COLOR_NAMES, 4), rng), rng.choice(SCENE_NAMES), width, height)
    return world, paint(world, rng)


def _crops(world: World, image: Image.Image, texts: list[str]) -> list[Side]:
    """The pieces of a picture, one per thing, each with its text."""
    return [
        Side(text, Picture(image.crop(thing.box(*image.size))), f"{_what(thing)} {text} @ {world.scene}")
        for thing, text in zip(world.things, texts, strict=True)
    ]


def _what(thing: Thing) -> str:
    return f"{thing.color} {thing.name}"


def _example(world: World, image: Image.Image, asked: int, text: str, texts: list[str] | None = None) -> Example:
    crops = _crops(world, image, texts or [""] * len(world.things))
    near = tuple(crop for position, crop in enumerate(crops) if position != asked)
    return Example(picture_query(image, text), crops[asked], near)


def _label(rng: Random) -> Example:
    world, image = _scene(rng)
    asked = rng.randrange(4)
    return _example(world, image, asked, f'"{world.things[asked].name}"')


def _expression(rng: Random) -> Example:
    world, image = _twins(rng)
    asked = rng.randrange(4)
    thing = world.things[asked]
    text = rng.choice((_what(thing), f"the {_what(thing)}", f"{CORNERS[asked]} {thing.name}"))
    return _example(world, image, asked, f'"{text}"')


def _matching(rng: Random) -> Example:
    """Both sides describe the thing, each in its own words."""
    world, image = _twins(rng)
    asked = rng.randrange(4)
    thing = world.things[asked]
    texts = [f'"{where} {other.name}"' for where, other in zip(CORNERS, world.things, strict=True)]
    return _example(world, image, asked, f'"{_what(thing)}"', texts)


def _pointing(rng: Random) -> Example:
    world, image = _scene(rng)
    asked = rng.randrange(4)
    thing = world.things[asked]
    text = rng.choice((f"Which thing is {thing.color}?", f"Which one is the {thing.name}?"))
    return _example(world, image, asked, f'"{text}"')


MAKERS: dict[str, Maker] = {
    "MSCOCO": _label,
    "RefCOCO": _expression,
    "RefCOCO-Matching": _matching,
    "Visual7W-Pointing": _pointing,
}
