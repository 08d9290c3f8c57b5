"""The ten question answering tasks: pictures with a question and its answer."""

from dataclasses import replace
from random import Random

from PIL import Image, ImageEnhance, ImageFilter

from mmeb.demo.canvas import COLOR_NAMES
from mmeb.demo.example import Example, Maker, Side, picture_query
from mmeb.demo.objects import OBJECT_NAMES
from mmeb.demo.pages import Bars, draw_bars, draw_form, draw_infographic, draw_pie
from mmeb.demo.scenes import SCENE_NAMES
from mmeb.demo.signs import draw_die, draw_label, draw_sign
from mmeb.demo.things import Thing
from mmeb.demo.worlds import NUMBERS, article, group_world, make_world, paint, plural

# What everybody knows of a thing: what it is for, where it is found, what it is made of.
_FACTS: dict[str, tuple[str, str, str]] = {
    "star": ("wishing", "in space", "gas"),
    "heart": ("loving", "in the chest", "muscle"),
    "moon": ("lighting the night", "in space", "rock"),
    "ball": ("playing", "playground", "rubber"),
    "box": ("packing", "post office", "cardboard"),
    "ring": ("marrying", "jeweler", "gold"),
    "house": ("living", "village", "brick"),
    "tree": ("climbing", "park", "wood"),
    "flower": ("smelling", "garden", "petals"),
    "car": ("driving", "garage", "steel"),
    "boat": ("sailing", "harbor", "wood"),
    "fish": ("swimming", "aquarium", "scales"),
    "bird": ("flying", "nest", "feathers"),
    "cat": ("purring", "sofa", "fur"),
    "butterfly": ("flying", "garden", "wings"),
    "mushroom": ("cooking", "woods", "fungus"),
    "apple": ("eating", "orchard", "fruit"),
    "cup": ("drinking", "cupboard", "porcelain"),
    "bottle": ("drinking", "shop", "glass"),
    "key": ("unlocking", "pocket", "metal"),
    "umbrella": ("staying dry", "hall", "cloth"),
    "balloon": ("celebrating", "party", "rubber"),
    "lamp": ("reading", "desk", "glass"),
    "clock": ("telling time", "wall", "metal"),
    "book": ("reading", "shelf", "paper"),
    "shirt": ("wearing", "wardrobe", "cotton"),
    "dress": ("dancing", "wardrobe", "silk"),
    "hat": ("wearing", "hook", "felt"),
    "chair": ("sitting", "office", "wood"),
    "guitar": ("making music", "stage", "wood"),
    "rocket": ("flying to space", "launch pad", "steel"),
    "bell": ("ringing", "tower", "bronze"),
}
_FACT_QUESTIONS = ("What can you use this for?", "Where would you find this?", "What is this made of?")

_NAMES = ("Ada", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hanna", "Ivan", "Julia", "Kim", "Leo")
_CITIES = ("Paris", "Oslo", "Lima", "Cairo", "Rome", "Tokyo", "Delhi", "Quito", "Sofia", "Kyiv", "Bern", "Accra")
_MONTHS = ("January", "March", "May", "June", "July", "August", "October", "December")
_FIELDS: dict[str, tuple[str, ...]] = {
    "Name": _NAMES,
    "City": _CITIES,
    "Month": _MONTHS,
    "Total": tuple(str(number) for number in range(10, 100, 5)),
}


def _knowledge(rng: Random) -> Example:
    world = make_world(rng, 1, rng.choice(["any", None]))
    fact = rng.randrange(3)
    return Example(picture_query(paint(world, rng), _FACT_QUESTIONS[fact]), Side(_FACTS[world.things[0].name][fact]))


def _two_things(rng: Random) -> tuple[Image.Image, str, str]:
    """A picture of two things, a question and its answer in a word."""
    world = make_world(rng, 2, rng.choice(["any", None]))
    left, right = world.things
    asked = rng.choice(world.things)
    question, answer = rng.choice(
        (
            (f"What color is the {asked.name}?", asked.color),
            (f"What is the {asked.color} thing?", asked.name),
            ("What is on the left?", left.name),
            ("What is on the right?", right.name),
        )
    )
    return paint(world, rng), question, answer


def _reasoning(rng: Random) -> Example:
    image, question, answer = _two_things(rng)
    return Example(picture_query(image, question), Side(answer))


def _form(rng: Random) -> Example:
    names = rng.sample(tuple(_FIELDS), 2)
    fields = {name: rng.choice(_FIELDS[name]) for name in names}
    asked = rng.choice(names)
    image = draw_form(rng.choice(("Invoice", "Ticket", "Receipt", "Letter")), fields, rng)
    question = rng.choice(("What is the {}?", "Which {} is written on the form?")).format(asked.lower())
    near = tuple(Side(value) for name, value in fields.items() if name != asked)
    return Example(picture_query(image, question), Side(fields[asked]), near)


def _infographic(rng: Random) -> Example:
    count = rng.choice((2, 3))
    numbers = rng.sample(range(2, 30), count)
    names = rng.sample(OBJECT_NAMES, count)
    entries = [(name, rng.choice(COLOR_NAMES), number) for name, number in zip(names, numbers, strict=True)]
    image = draw_infographic(rng.choice(("Sold in May", "Our shop", "What we own", "In numbers")), entries, rng)
    name, _, number = rng.choice(entries)
    if rng.random() < 0.5:
        question, answer = f"How many {plural(name)} are counted?", str(number)
        near = tuple(Side(str(other)) for other in numbers if other != number)
    else:
        question, answer = f"Which item is counted {number} times?", name
        near = tuple(Side(other) for other in names if other != name)
    return Example(picture_query(image, question), Side(answer), near)


def _bars(count: int, rng: Random) -> Bars:
    """Bars of chance heights, in colours that show on white paper."""
    colors = rng.sample([color for color in COLOR_NAMES if color != "white"], count)
    return Bars(tuple(colors), tuple(rng.sample(range(10, 100, 5), count)))


def _chart(rng: Random) -> Example:
    count = rng.choice((2, 3, 4, 5))
    bars = _bars(count, rng)
    colors = bars.colors
    title = rng.choice(("Sales", "Visitors", "Rain", "Votes"))
    if rng.random() < 0.2:
        share = rng.choice((60, 65, 70, 75))
        slices = [(colors[0], share), (colors[1], 100 - share)]
        return Example(
            picture_query(draw_pie(title, slices, rng), "Which color has the largest share?"), Side(colors[0])
        )
    asked = rng.randrange(count)
    question, answer = rng.choice(
        (
            ("What is the color of the highest bar?", bars.highest),
            ("What is the color of the lowest bar?", bars.lowest),
            ("How many bars are shown?", str(count)),
            (f"What is the value of the {colors[asked]} bar?", str(bars.values[asked])),
        )
    )
    return Example(picture_query(draw_bars(title, bars, rng), question), Side(answer))


def _sentence(word: str) -> str:
    return f"{word[0].upper()}{word[1:]}."


def _who_what_where(rng: Random) -> Example:
    """Counts, places, colours and dice; answers are sentences, with a capital and a full stop."""
    kind = rng.choice(("count", "place", "color", "die"))
    if kind == "die":
        face = rng.randint(1, 6)
        query = picture_query(draw_die(face, rng), "How many dots does the die show?")
        return Example(query, Side(_sentence(NUMBERS[face])))
    name, color, count = rng.choice(OBJECT_NAMES), rng.choice(COLOR_NAMES), rng.randint(1, 4)
    scene = rng.choice(SCENE_NAMES)
    image = paint(group_world(rng, name, color, count, scene), rng)
    question, answer = {
        "count": (f"How many {plural(name)} are there?", NUMBERS[count]),
        "place": ("Where was this picture taken?", f"In the {scene}"),
        "color": (f"What color {'is' if count == 1 else 'are'} the {name if count == 1 else plural(name)}?", color),
    }[kind]
    return Example(picture_query(image, question), Side(_sentence(answer)))


def _school(rng: Random) -> Example:
    """Facts, dice and charts, in a school book's words."""
    kind = rng.choice(("material", "use", "die", "chart"))
    if kind == "die":
        face = rng.randint(1, 6)
        return Example(picture_query(draw_die(face, rng), "How many dots does this die show?"), Side(NUMBERS[face]))
    if kind == "chart":
        bars = _bars(3, rng)
        question = "Look at the chart. Which color is the highest bar?"
        return Example(picture_query(draw_bars("Experiment", bars, rng), question), Side(bars.highest))
    world = make_world(rng, 1, None)
    use, _, material = _FACTS[world.things[0].name]
    question, answer = {
        "material": ("Which material is this object made of?", material),
        "use": ("What do people use this object for?", use),
    }[kind]
    return Example(picture_query(paint(world, rng), question), Side(answer))


def _blurred(rng: Random) -> Example:
    """A hurried photo: out of focus, too dark or too bright, askew."""
    world = make_world(rng, 1, rng.choice(["any", None]))
    thing = replace(world.things[0], angle=rng.uniform(-35, 35), size=rng.uniform(0.3, 0.42))
    image = paint(replace(world, things=(thing,)), rng).filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 2)))
    image = ImageEnhance.Brightness(image).enhance(rng.choice((0.65, 1.0, 1.25)))
    question, answer = rng.choice(
        (
            ("Can you tell me what this thing is please?", thing.name),
            ("What color is this please?", thing.color),
        )
    )
    return Example(picture_query(image, question), Side(answer))


def _scene_graph(rng: Random) -> Example:
    """The questions on two things, answered in full sentences."""
    image, question, answer = _two_things(rng)
    said = f"It is {answer}." if answer in COLOR_NAMES else f"This is {article(answer)} {answer}."
    return Example(picture_query(image, question), Side(said))


def _reading(rng: Random) -> Example:
    word = rng.choice((*_NAMES, *_CITIES))
    if rng.random() < 0.5:
        image, question = draw_sign(word, rng.choice(SCENE_NAMES), rng), "what is written on the sign?"
    else:
        thing = Thing(rng.choice(OBJECT_NAMES), rng.choice(COLOR_NAMES), 0.5, 0.34, 0.28)
        image, question = draw_label(word, thing, rng), f"what is the name of this {thing.name}?"
    return Example(picture_query(image, question), Side(word.lower()))


MAKERS: dict[str, Maker] = {
    "OK-VQA": _knowledge,
    "A-OKVQA": _reasoning,
    "DocVQA": _form,
    "InfographicsVQA": _infographic,
    "ChartQA": _chart,
    "Visual7W": _who_what_where,
    "ScienceQA": _school,
    "VizWiz": _blurred,
    "GQA": _scene_graph,
    "TextVQA": _reading,
}
