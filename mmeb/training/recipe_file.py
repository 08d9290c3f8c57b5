"""Recipes as YAML, as plain values, and as `KEY=VALUE`."""

import dataclasses
import difflib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from mmeb.errors import MmebError
from mmeb.training.recipe import LoraSettings, Recipe


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain values: lists for tuples, a mapping for the LoRA."""
    return {name: _plain(value) for name, value in dataclasses.asdict(recipe).items()}


def to_yaml(recipe: Recipe, head: str = "", comments: Mapping[str, str] | None = None) -> str:
    """A recipe as YAML, with `head` as a comment above it and `comments` above the settings that they are of."""
    lines = _comment(head) + [""] * bool(head)
    for name, value in to_mapping(recipe).items():
        lines += _comment((comments or {}).get(name, ""))
        lines += yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True).rstrip("\n").split("\n")
    return "\n".join(lines) + "\n"


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file. Raises MmebError for one that can't be read, an unknown setting or a wrong value."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MmebError(
            f"There is no file {path}: `mmeb train --adapter NAME --show` prints one to begin with."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise MmebError(f"{path} can't be read as YAML: {' '.join(str(error).split())}.") from None
    return from_mapping(content, str(path))


def from_mapping(content: Any, where: str = "The recipe") -> Recipe:
    """A recipe from plain values. Raises MmebError for an unknown setting, a wrong value, and a missing adapter."""
    recipe: Recipe = _build(Recipe, content, where, "")
    return recipe


def with_setting(recipe: Recipe, pair: str) -> Recipe:
    """The recipe with `KEY=VALUE`, the value as in YAML; `lora.rank=16` and `options.num_crops=8` reach inside."""
    key, separator, text = pair.partition("=")
    if not separator or not key:
        raise MmebError(f"A setting is written KEY=VALUE, not {pair!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise MmebError(f"The value of {key} can't be read: {text!r}.") from None
    content = to_mapping(recipe)
    outer, dot, inner = key.partition(".")
    if dot and outer in ("lora", "options", "weights"):
        if content[outer] is None:
            raise MmebError(f"The recipe has no {outer}, so {key} has nothing to set.")
        content[outer][inner] = value
    else:
        content[key] = value
    return from_mapping(content, "The recipe")


def _build(kind: type, content: Any, where: str, inside: str) -> Any:
    if not isinstance(content, Mapping):
        raise MmebError(f"{where} is to be a mapping of settings{inside and f' under {inside}'}, not {content!r}.")
    hints = get_type_hints(kind)
    values = {}
    for name, value in content.items():
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1, cutoff=0.4)
            hint = f"did you mean {inside}{near[0]}?" if near else f"it has {', '.join(hints)}."
            raise MmebError(f"{where}: a recipe has no setting {f'{inside}{name}'!r}: {hint}")
        values[name] = _value(f"{inside}{name}", value, hints[name], where)
    required = [field.name for field in dataclasses.fields(kind) if _required(field)]
    if missing := [name for name in required if name not in values]:
        raise MmebError(f"{where} lacks the setting {inside}{missing[0]}.")
    return kind(**values)


def _value(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` as the type that `hint` names; a number may come as text, as YAML reads 2e-5, a list as `a,b`."""
    if get_origin(hint) in (Union, types.UnionType):
        inner = next(part for part in get_args(hint) if part is not type(None))
        return None if value is None else _value(name, value, inner, where)
    if hint is LoraSettings:
        return _build(LoraSettings, value, where, f"{name}.")
    wanted = "text"
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        wanted = f"one of {', '.join(get_args(hint))}"
    elif get_origin(hint) is tuple:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and all(isinstance(part, str) for part in parts):
            return tuple(part.strip() for part in parts)
        wanted = "a list of names"
    elif get_origin(hint) is not None:  # a mapping of names to text or numbers
        inner = get_args(hint)[1]
        if isinstance(value, Mapping):
            return {str(key): _value(f"{name}.{key}", part, inner, where) for key, part in value.items()}
        wanted = "a mapping"
    elif hint is bool:
        if isinstance(value, bool):
            return value
        wanted = "true or false"
    elif hint is str:
        if isinstance(value, str | int | float):
            return str(value)
    else:
        wanted = "a whole number" if hint is int else "a number"
        try:
            number = hint(value) if not isinstance(value, bool | float) or hint is float else None
        except (TypeError, ValueError):
            number = None
        if number is not None:
            return number
    raise MmebError(f"{where}: {name} is to be {wanted}, not {value!r}.")


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _comment(text: str) -> list[str]:
    return [f"# {line}".rstrip() for line in text.splitlines()]
