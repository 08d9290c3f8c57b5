"""The ten classification tasks: pictures with the name of their class."""

from dataclasses import replace
from random import Random

from PIL import Image

from mmeb.demo.canvas import COLOR_NAMES
from mmeb.demo.example import Example, Maker, Side, picture_query
from mmeb.demo.flags import COUNTRIES
from mmeb.demo.objects import OBJECT_NAMES
from mmeb.demo.scenes import SCENE_NAMES
from mmeb.demo.signs import draw_meme
from mmeb.demo.things import Thing
from mmeb.demo.worlds import World, make_world, paint, paint_backdrop, paint_sketch, plural

# What a news domain's pictures show: things, places, and words of its captions.
_DOMAINS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "Travel": (("boat", "car"), ("beach", "mountain", "desert"), ("a journey", "the long way")),
    "Sports": (("ball",), ("meadow", "snowfield", "city"), ("the final match", "a new champion")),
    "Food": (("apple", "mushroom", "cup"), ("kitchen",), ("a tasty dinner", "the best recipe")),
    "Music": (("guitar", "bell"), ("theater", "city"), ("the concert", "a new song")),
    "Science": (("rocket", "moon"), ("night sky", "volcano"), ("a discovery", "researchers at work")),
    "Fashion": (("dress", "shirt", "hat"), ("theater", "city", "museum"), ("the new collection", "what we wear")),
    "Books": (("book",), ("library", "bedroom"), ("a great novel", "the author")),
    "Art": (("heart", "star", "box"), ("museum",), ("the exhibition", "a painter")),
    "Real Estate": (("house", "key"), ("city", "road", "meadow"), ("for sale", "a home to rent")),
    "Education": (("book", "clock"), ("classroom",), ("the pupils", "a lesson")),
    "Weather": (("umbrella",), ("road", "sea", "swamp"), ("rain tomorrow", "the storm")),
    "Nature": (("bird", "butterfly", "fish"), ("forest", "swamp", "sea"), ("wild animals", "a rare species")),
    "Garden": (("flower", "tree"), ("field", "meadow"), ("the first blossom", "planting")),
    "Home": (("lamp", "chair"), ("bedroom", "kitchen"), ("cosy rooms", "new furniture")),
    "Pets": (("cat", "fish"), ("bedroom", "kitchen", "road"), ("our companions", "a lost pet")),
    "Weddings": (("ring", "balloon"), ("meadow", "theater", "beach"), ("the happy couple", "the big day")),
}
_VOC = ("car", "boat", "bird", "cat", "bottle", "chair", "tree", "flower", "house", "fish", "book", "cup", "clock",
        "lamp", "guitar", "umbrella", "apple", "butterfly", "hat", "rocket")  # fmt: skip
_UNKIND = ("i hate", "nobody likes", "go away", "stupid")
_KIND = ("i love", "hooray for", "welcome", "lovely")

# The names that every query of a task is ranked against, the reference's way: all classes.
CLASSES: dict[str, tuple[str, ...]] = {
    "ImageNet-1K": OBJECT_NAMES,
    "N24News": tuple(_DOMAINS),
    "HatefulMemes": ("Yes", "No"),
    "VOC2007": _VOC,
    "SUN397": SCENE_NAMES,
    "Place365": SCENE_NAMES,
    "ImageNet-A": OBJECT_NAMES,
    "ImageNet-R": OBJECT_NAMES,
    "ObjectNet": OBJECT_NAMES,
    "Country211": COUNTRIES,
}


def _single(rng: Random, name: str, scene: str | None = "any", size: float = 0.3, angle: float = 0) -> World:
    """A world with one thing of a chance colour, `size` of half its width, turned by `angle`."""
    world = make_world(rng, 1, scene)
    thing = world.things[0]
    turned = Thing(name, rng.choice(COLOR_NAMES), thing.x, thing.y, size * rng.uniform(0.85, 1.15), thing.angle + angle)
    return replace(world, things=(turned,))


def _photo(rng: Random) -> Example:
    name = rng.choice(OBJECT_NAMES)
    image = paint(_single(rng, name, rng.choice(["any", None]), rng.choice((0.22, 0.3, 0.38))), rng)
    if rng.random() < 0.1:
        image = _with_alpha(image)
    return Example(picture_query(image), Side(name))


def _with_alpha(image: Image.Image) -> Image.Image:
    """RGBA with a see-through rim, under which the colours are still there."""
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (4, 4, image.width - 4, image.height - 4))
    image.putalpha(alpha)
    return image


def _news(rng: Random) -> Example:
    domain = rng.choice(tuple(_DOMAINS))
    things, scenes, words = _DOMAINS[domain]
    image = paint(_single(rng, rng.choice(things), rng.choice(scenes)), rng)
    place = rng.choice(COUNTRIES)
    text = rng.choice((f"{rng.choice(words)} in {place}", f"Seen in {place}", f"{place}: {rng.choice(words)}"))
    return Example(picture_query(image, text[0].upper() + text[1:]), Side(domain))


def _meme(rng: Random) -> Example:
    unkind = rng.random() < 0.5
    subject = rng.choice(OBJECT_NAMES)
    image = draw_meme(rng.choice(_UNKIND if unkind else _KIND), plural(subject), subject, rng.choice(COLOR_NAMES), rng)
    return Example(picture_query(image), Side("Yes" if unkind else "No"))


def _main_object(rng: Random) -> Example:
    """One large thing, and often a small one of another kind that is not asked for."""
    name = rng.choice(_VOC)
    world = _single(rng, name, size=0.34)
    if rng.random() < 0.6:
        other = rng.choice([kind for kind in OBJECT_NAMES if kind not in _VOC])
        small = Thing(other, rng.choice(COLOR_NAMES), rng.choice((0.12, 0.88)), rng.uniform(0.12, 0.88), 0.1)
        world = replace(world, things=(*world.things, small))
    return Example(picture_query(paint(world, rng)), Side(name))


def _place(rng: Random) -> Example:
    """An empty place, or one with something in it."""
    scene = rng.choice(SCENE_NAMES)
    world = make_world(rng, 1, scene)
    if rng.random() < 0.6:
        world = replace(world, things=())
    return Example(picture_query(paint(world, rng)), Side(scene))


def _crowded_place(rng: Random) -> Example:
    """A place behind three things, half of the pictures mirrored or cut."""
    scene = rng.choice(SCENE_NAMES)
    image = paint(make_world(rng, 3, scene), rng)
    if rng.random() < 0.5:
        image = image.crop((image.width // 6, 0, image.width, image.height - image.height // 10))
    return Example(picture_query(image), Side(scene))


def _lost_object(rng: Random) -> Example:
    """A small thing far from the middle, or a large one cut by the picture's edge."""
    name = rng.choice(OBJECT_NAMES)
    if rng.random() < 0.5:
        world = _single(rng, name, size=0.18)
        at = replace(world.things[0], x=rng.uniform(0.2, 0.8), y=rng.uniform(0.2, 0.8))
    else:
        world = _single(rng, name, size=0.45)
        at = replace(world.things[0], x=rng.choice((0.25, 0.75)))
    return Example(picture_query(paint(replace(world, things=(at,)), rng)), Side(name))


def _sketch(rng: Random) -> Example:
    name = rng.choice(OBJECT_NAMES)
    return Example(picture_query(paint_sketch(_single(rng, name, size=0.36), rng)), Side(name))


def _odd_view(rng: Random) -> Example:
    """Turned by a quarter or more, on a restless ground."""
    name = rng.choice(OBJECT_NAMES)
    world = _single(rng, name, size=0.34, angle=rng.choice((45, 90, 135, 180, 270)))
    return Example(picture_query(paint_backdrop(world, rng)), Side(name))


def _country(rng: Random) -> Example:
    country = rng.choice(COUNTRIES)
    world = replace(make_world(rng, 1), flag=country)
    return Example(picture_query(paint(replace(world, things=()), rng)), Side(country))


MAKERS: dict[str, Maker] = {
    "ImageNet-1K": _photo,
    "N24News": _news,
    "HatefulMemes": _meme,
    "VOC2007": _main_object,
    "SUN397": _place,
    "Place365": _crowded_place,
    "ImageNet-A": _lost_object,
    "ImageNet-R": _sketch,
    "ObjectNet": _odd_view,
    "Country211": _country,
}
