"""An adapter's options: a frozen dataclass says which there are, a user gives words."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from mmeb.errors import MmebError

Options = TypeVar("Options")


def parse_options(options_class: type[Options], given: Mapping[str, str], adapter: str) -> Options:
    """`options_class` (a dataclass with a default for every field) with what a user gave as `--option key=value`.

    A field is a Literal of words, an int (a whole number above 0), or either with None as its default. Raises MmebError
    for an option that the adapter lacks, and for a value that the option can't have, naming those that it can.
    """
    types = get_type_hints(options_class)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in types:
            known = ", ".join(types) or "none"
            raise MmebError(f"The adapter {adapter} has no option {name!r}; its options are: {known}.")
        values[name] = _value(name, value, types[name])
    return options_class(**values)


def to_json(options: Any) -> dict[str, Any]:
    """All options with their values, for the provenance."""
    return dataclasses.asdict(options)


def _value(name: str, value: str, kind: Any) -> str | int:
    words = [word for part in (kind, *get_args(kind)) if get_origin(part) is Literal for word in get_args(part)]
    if value in words:
        return value
    if int in (kind, *get_args(kind)):
        if value.isdecimal() and int(value) > 0:
            return int(value)
        words.append("a whole number above 0")
    raise MmebError(f"The option {name} can't be {value!r}: it is one of {', '.join(words)}.")
