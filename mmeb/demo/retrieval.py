"""The twelve retrieval tasks: captions, dialogues, changes, look-alikes, questions and documents."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from PIL import Image

from mmeb.demo.canvas import COLOR_NAMES, Canvas, jitter
from mmeb.demo.example import Example, Maker, Picture, Side, picture_query
from mmeb.demo.flags import COUNTRIES
from mmeb.demo.objects import OBJECT_NAMES
from mmeb.demo.pages import draw_article
from mmeb.demo.scenes import SCENE_NAMES
from mmeb.demo.things import Thing, draw_thing
from mmeb.demo.worlds import NUMBERS, World, article, caption, describe, group_world, make_world, paint, place, plural

_GARMENTS = ("shirt", "dress", "hat")


def _meaning(world: World) -> str:
    """What a picture shows, so that two pictures of the same content are known to be equally right."""
    things = sorted(f"{thing.color} {thing.name}" for thing in world.things)
    return f"{', '.join(things)} @ {world.scene} / {world.flag}"


def _shown(world: World, rng: Random, text: str = "") -> Side:
    return Side(text, Picture(paint(world, rng)), f"{_meaning(world)} {text}")


def _other(value: str, values: tuple[str, ...], rng: Random) -> str:
    return rng.choice([candidate for candidate in values if candidate != value])


def _with_thing(world: World, position: int, **changes: str) -> World:
    things = list(world.things)
    things[position] = replace(things[position], **changes)  # type: ignore[arg-type]
    return replace(world, things=tuple(things))


def _changed(world: World, rng: Random) -> World:
    """The world with one thing's colour, one thing's kind or the place exchanged."""
    position = rng.randrange(len(world.things))
    thing = world.things[position]
    kind = rng.choice(("color", "name", "scene"))
    if kind == "color":
        return _with_thing(world, position, color=_other(thing.color, COLOR_NAMES, rng))
    if kind == "name":
        return _with_thing(world, position, name=_other(thing.name, OBJECT_NAMES, rng))
    return replace(world, scene=_other(world.scene or "", SCENE_NAMES, rng))


def _everyday(rng: Random) -> World:
    if rng.random() < 0.25:
        return group_world(
            rng, rng.choice(OBJECT_NAMES), rng.choice(COLOR_NAMES), rng.randint(2, 4), rng.choice(SCENE_NAMES)
        )
    return make_world(rng, rng.choice((1, 2)))


def _to_image(world_of: Callable[[Random], World], words: Callable[[World, Random], str]) -> Maker:
    """Captions to pictures; a picture that is changed in one respect is among the candidates."""

    def make(rng: Random) -> Example:
        world = world_of(rng)
        return Example(Side(words(world, rng)), _shown(world, rng), (_shown(_changed(world, rng), rng),))

    return make


def _to_caption(world_of: Callable[[Random], World], words: Callable[[World, Random], str]) -> Maker:
    """Pictures to captions; that of a picture that is changed in one respect is among the candidates."""

    def make(rng: Random) -> Example:
        world = world_of(rng)
        other = _changed(world, rng)
        return Example(
            picture_query(paint(world, rng)),
            Side(words(world, rng), meaning=_meaning(world)),
            (Side(words(other, rng), meaning=_meaning(other)),),
        )

    return make


def _news_world(rng: Random) -> World:
    world = make_world(rng, 1, flag=rng.choice(COUNTRIES))
    thing = replace(world.things[0], x=rng.uniform(0.6, 0.72), y=rng.uniform(0.6, 0.68), size=0.26)
    return replace(world, things=(thing,))


def _news_caption(world: World, rng: Random) -> str:
    """Who (the flag's country), what (the thing), where (the place)."""
    what, where = describe(world.things[0]), f"in the {world.scene}"
    template = rng.choice(
        (
            "The minister of {flag} presents {what} {where}.",
            "Visitors from {flag} look at {what} {where}.",
            "{what} {where}, a gift of {flag}.",
            "{flag} shows {what} to the press {where}.",
        )
    )
    text = template.format(flag=world.flag, what=what, where=where)
    return text[0].upper() + text[1:]


def _dialogue(rng: Random) -> Example:
    """Questions and answers that tell a picture's content bit by bit."""
    world = _everyday(rng)
    first = world.things[0]
    same = all((thing.name, thing.color) == (first.name, first.color) for thing in world.things)
    lines = [(f"is there {article(first.name)} {first.name}", "yes"), ("what color is it", first.color)]
    if same and len(world.things) > 1:
        lines.append(("how many are there", NUMBERS[len(world.things)]))
    elif same:
        lines.append(("is there anything else", "no"))
    else:
        lines.append(("is there anything else", f"yes, {describe(world.things[1])}"))
    wrong = _other(world.scene or "", SCENE_NAMES, rng)
    rest = [(f"is it in the {wrong}", "no"), ("where is it", f"in the {world.scene}")]
    lines = rest + lines if rng.random() < 0.5 else lines + rest
    text = "".join(f"Q:{question}\nA:{answer}\n" for question, answer in lines)
    return Example(Side(text), _shown(world, rng), (_shown(_changed(world, rng), rng),))


def _change(rng: Random) -> Example:
    """A picture and what must be different; the unchanged picture is among the candidates."""
    world = make_world(rng, 1)
    thing = world.things[0]
    kind = rng.choice(("color", "name", "scene", "count"))
    if kind == "color":
        color = _other(thing.color, COLOR_NAMES, rng)
        text = rng.choice((f"Make the {thing.name} {color}.", f"Is {color} instead of {thing.color}."))
        target = _with_thing(world, 0, color=color)
    elif kind == "name":
        name = _other(thing.name, OBJECT_NAMES, rng)
        text = rng.choice((f"Replace it with {article(name)} {name}.", f"Show {article(name)} {name} instead."))
        target = _with_thing(world, 0, name=name)
    elif kind == "scene":
        scene = _other(world.scene or "", SCENE_NAMES, rng)
        text = rng.choice((f"Move it to the {scene}.", f"The same in the {scene}."))
        target = replace(world, scene=scene)
    else:
        count = rng.randint(2, 4)
        text = f"Show {NUMBERS[count]} {plural(thing.name)}."
        target = replace(world, things=place([thing.name] * count, [thing.color] * count, rng))
    before, after = world, target.moved(rng)
    return Example(
        picture_query(paint(before, rng), text),
        _shown(after, rng),
        (_shown(before.moved(rng), rng), _shown(_changed(after, rng), rng)),
    )


def _similar(rng: Random) -> Example:
    world = make_world(rng, rng.choice((1, 2)))
    return Example(
        picture_query(paint(world, rng)), _shown(world.moved(rng), rng), (_shown(_changed(world, rng).moved(rng), rng),)
    )


def _encyclopedia(rng: Random) -> Example:
    """Which colour a country's famous thing has; the picture's text names both."""
    world = _news_world(rng)
    thing, country = world.things[0], world.flag
    text = f"The famous {thing.name} of {country}, seen in the {world.scene}."
    other = _other(thing.name, OBJECT_NAMES, rng)
    near = _with_thing(world, 0, name=other)
    return Example(
        Side(f"What color is the famous {thing.name} of {country}?"),
        _shown(world, rng, text),
        (_shown(near, rng, f"The famous {other} of {country}, seen in the {world.scene}."),),
    )


def _fashion(rng: Random) -> Example:
    """A garment on a plain wall, and how the target differs."""
    name, color = rng.choice(_GARMENTS), rng.choice(COLOR_NAMES)
    target_color, target_name = _other(color, COLOR_NAMES, rng), name
    text = f"Is {target_color} instead of {color}."
    if rng.random() < 0.4:
        target_name = _other(name, _GARMENTS, rng)
        text = f"Is {article(target_name)} {target_name} instead and is {target_color}."
    before = Side("", Picture(_garment(name, color, rng)), f"{color} {name}")
    after = Side("", Picture(_garment(target_name, target_color, rng)), f"{target_color} {target_name}")
    return Example(replace(before, text=text), after, (before,))


def _garment(name: str, color: str, rng: Random) -> Image.Image:
    canvas = Canvas(rng.randint(96, 120), rng.randint(120, 150), jitter((232, 228, 222), rng, 12))
    draw_thing(canvas, Thing(name, color, 0.5, 0.5, rng.uniform(0.36, 0.46), rng.uniform(-5, 5)))
    return canvas.finish()


def _document(rng: Random) -> Example:
    """A question whose answer stands on the page of its subject."""
    if rng.random() < 0.35:
        subject = rng.choice(COUNTRIES)
        question = rng.choice(("where is {} on the map", "who is the president of {}", "what is the flag of {}"))
    else:
        subject = rng.choice(OBJECT_NAMES)
        question = rng.choice(("when was the first {} made", "what is a {}", "who invented the {}"))
    return Example(
        Side(question.format(subject)), Side("", Picture(draw_article(subject, rng)), meaning=f"page: {subject}")
    )


def _landmark(rng: Random) -> Example:
    """A place with a flag, and the page that describes it beside another picture of it."""
    world = _news_world(rng)
    thing = world.things[0]

    def page(shown: World) -> Side:
        what, first = describe(shown.things[0]), shown.things[0]
        name = f"{first.color.capitalize()} {first.name.capitalize()} of {shown.flag}"
        return _shown(shown.moved(rng), rng, f"{name}. The {name} is {what} in the {shown.scene}.")

    near = page(_with_thing(world, 0, name=_other(thing.name, OBJECT_NAMES, rng)))
    return Example(picture_query(paint(world, rng), "What is the name of this place?"), page(world), (near,))


def _evidence(rng: Random) -> Example:
    """A news caption, and the picture with its headline."""
    world = _news_world(rng)

    def article_page(shown: World) -> Side:
        return _shown(shown, rng, f"{shown.flag}: all eyes on {describe(shown.things[0])}.")

    return Example(Side(_news_caption(world, rng)), article_page(world), (article_page(_changed(world, rng)),))


MAKERS: dict[str, Maker] = {
    "VisDial": _dialogue,
    "CIRR": _change,
    "VisualNews_t2i": _to_image(_news_world, _news_caption),
    "VisualNews_i2t": _to_caption(_news_world, _news_caption),
    "MSCOCO_t2i": _to_image(_everyday, caption),
    "MSCOCO_i2t": _to_caption(_everyday, caption),
    "NIGHTS": _similar,
    "WebQA": _encyclopedia,
    "FashionIQ": _fashion,
    "Wiki-SS-NQ": _document,
    "OVEN": _landmark,
    "EDIS": _evidence,
}
