"""Outside input as typed values, and one sentence for whatever is wrong with it."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_args, get_type_hints

from mmeb.errors import MmebError

if TYPE_CHECKING:  # pydantic is imported when the first input is read, so that `mmeb --help` stays cheap
    from pydantic import TypeAdapter

T = TypeVar("T")

_MAX_SHOWN = 80  # characters of a wrong value in a message
_EXPECTED = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping",
    "mapping": "a mapping",
    "dataclass": "a mapping",
    "path": "a path",
    "finite": "a finite number",
}
"""What was expected, by the first word of pydantic's public error types (`int_parsing`, `int_from_float`, ...)."""
_BOUNDS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or less",
}


@dataclasses.dataclass(frozen=True)
class Before:
    """Annotation that converts a value before pydantic checks it: `Annotated[str, Before(function)]`."""

    function: Callable[[Any], Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.function, handler(source))


Text = Annotated[str, Before(lambda value: str(value) if isinstance(value, int | float) else value)]
"""A string that YAML may have read as a number or a truth value."""

Names = Annotated[
    tuple[str, ...],
    Before(
        lambda value: [name for part in value.split(",") if (name := part.strip())] if isinstance(value, str) else value
    ),
]
"""A list of names, also written `a,b`."""


def suggest(name: str, known: Iterable[str], *, n: int = 1, cutoff: float = 0.6) -> str:
    """`did you mean X?` with up to `n` of the `known` names that are nearest to `name`, "" where none is near.

    Case does not count. `cutoff` is the least similarity, from 0 to 1 (`difflib.get_close_matches`).
    """
    spelling = {each.lower(): each for each in known}
    matches = difflib.get_close_matches(name.lower(), spelling, n=n, cutoff=cutoff)
    return f"did you mean {' or '.join(spelling[match] for match in matches)}?" if matches else ""


def parse(kind: type[T], content: Any, where: str, *, noun: str = "setting", strict: bool = False) -> T:
    """Check `content` (plain values, as YAML or JSON has them) against `kind`, and return it as such.

    `kind` is a dataclass or any other type that pydantic knows; its fields are called `noun` in messages, and `where`
    names the input ("recipe.yaml"). Numbers may be given as text (YAML reads 2e-5 as such) unless `strict`; a truth
    value is never a number, a decimal number never an integer. Raises MmebError, one sentence about the first error:
    an unknown or missing name, or a wrong value. What `kind` raises in `__post_init__` comes out as it is.
    """
    from pydantic import ValidationError

    try:
        value: T = _adapter(cast(Any, kind)).validate_python(content, extra="forbid")
    except ValidationError as error:
        raise MmebError(_sentence(kind, content, where, noun, error.errors(include_url=False))) from None
    for path, expected, given in _conversions(content, value, (), strict):
        raise MmebError(f"{_subject(where, path)} must be {expected}, not {shown(given)}.")
    return value


@functools.cache
def _adapter(kind: Any) -> "TypeAdapter[Any]":
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _sentence(kind: Any, content: Any, where: str, noun: str, errors: Sequence[Mapping[str, Any]]) -> str:
    """The first of pydantic's errors in words; an unknown name comes before what it leaves missing."""
    unknown = ("unexpected_keyword_argument", "extra_forbidden", "invalid_key")
    first = min(errors, key=lambda error: error["type"] not in unknown)
    path, given = _locate(content, first)
    name = ".".join(map(str, path))
    if first["type"] in unknown:
        known, prefix = _fields(kind, path[:-1]), name.removesuffix(str(path[-1]))
        hint = suggest(str(path[-1]), known).replace("mean ", f"mean {prefix}")
        hint = hint or (f"there are {', '.join(prefix + field for field in known)}." if known else "")
        return f"{where}: there is no {noun} {name!r}" + (f": {hint}" if hint else ".")
    if first["type"] == "missing":
        return f"{where} lacks the {noun} {name}."
    if first["type"] == "value_error":
        return f"{_subject(where, path)}: {first['ctx']['error']}."
    alternatives = [error for error in errors if _locate(content, error)[0] == path]  # one for each part of a union
    expected = " or ".join(dict.fromkeys(map(_expected, alternatives)))
    if expected == "a mapping":
        expected = f"a mapping of {noun}s"
    return f"{_subject(where, path)} must be {expected}, not {shown(given)}."


def _locate(content: Any, error: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """The path of an error within `content`, and the value there; pydantic's has the parts of unions in it too."""
    path: list[Any] = []
    for part in error["loc"]:
        indexed = isinstance(content, list | tuple) and isinstance(part, int) and part < len(content)
        if indexed or (isinstance(content, Mapping) and part in content):
            content = content[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        path.append(part)
    return tuple(path), content


def _fields(kind: Any, path: Sequence[Any]) -> list[str]:
    """The names of the fields of the dataclass that lies at `path` within `kind`."""
    for part in (*path, None):
        kind = next((each for each in (kind, *get_args(kind)) if dataclasses.is_dataclass(each)), None)
        if part is not None and kind is not None:
            kind = get_type_hints(kind).get(part)
    return [field.name for field in dataclasses.fields(kind)] if kind is not None else []


def _expected(error: Mapping[str, Any]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    if "expected" in context:  # literals and enumerations
        return str(context["expected"])
    return _EXPECTED.get(kind.split("_")[0]) or str(error["msg"])


def _conversions(given: Any, value: Any, path: tuple[Any, ...], strict: bool) -> Iterator[tuple[Any, str, Any]]:
    """What pydantic converts and we do not: path, what was expected, what was given."""
    if isinstance(given, Mapping):
        for name, part in given.items():
            inner = value.get(name) if isinstance(value, Mapping) else getattr(value, str(name), None)
            yield from _conversions(part, inner, (*path, name), strict)
    elif isinstance(given, list | tuple) and isinstance(value, list | tuple):
        for position, (part, inner) in enumerate(zip(given, value, strict=False)):
            yield from _conversions(part, inner, (*path, position), strict)
    elif isinstance(value, bool):
        if not isinstance(given, bool):
            yield path, _EXPECTED["bool"], given
    elif isinstance(value, int | float):
        wrong = isinstance(given, bool) or (strict and isinstance(given, str))
        if wrong or (isinstance(given, float) and isinstance(value, int)):
            yield path, _EXPECTED["int" if isinstance(value, int) else "float"], given


def _subject(where: str, path: Sequence[Any]) -> str:
    return f"{where}: {'.'.join(map(str, path))}" if path else where


def shown(value: Any) -> str:
    """A wrong value as a message shows it: its repr, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
