"""One query with its right answer, before it becomes a row."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image


@dataclass(frozen=True, eq=False)
class Picture:
    """A drawn image; each is written to a file once, however many rows use it."""

    image: Image.Image

    @property
    def suffix(self) -> str:
        return "jpg" if self.image.mode == "RGB" else "png"


@dataclass(frozen=True)
class Side:
    """A query or a candidate: a text, a picture or both; `meaning` tells which candidates would be right as well."""

    text: str = ""
    picture: Picture | None = None
    meaning: str = ""

    @property
    def sense(self) -> str:
        return self.meaning or self.text


@dataclass(frozen=True)
class Example:
    """A query, the candidate that answers it, and candidates that nearly do."""

    query: Side
    target: Side
    near: tuple[Side, ...] = ()


Maker = Callable[[Random], Example]


def picture_query(image: Image.Image, text: str = "") -> Side:
    return Side(text, Picture(image))
