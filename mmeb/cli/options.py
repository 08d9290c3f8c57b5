"""The options that every command shares which loads a model."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mmeb.errors import MmebError

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--model", required=True, help="A registered name (`mmeb models`), a hub id, or a folder."),
    click.option("--adapter", help="The model's family, where its name does not tell."),
    click.option("--model-revision", help="Commit or branch of the model's repository."),
    click.option("--device", help="cpu, cuda, cuda:1, …  [default: cuda where there is one]"),
    click.option("--device-map", help="auto: spread a large model over all GPUs."),
    click.option("--dtype", help="float32, bfloat16 or float16.  [default: bfloat16 on a GPU, float32 on the CPU]"),
    click.option("--option", multiple=True, metavar="KEY=VALUE", help="An option of the adapter; may be repeated."),
    click.option("--offline", is_flag=True, help="Let no call leave the machine."),
)


def model_options(function: _Function) -> _Function:
    """Add the options by which a model is named and loaded."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def parse_options(pairs: tuple[str, ...]) -> dict[str, str]:
    """`("fusion=sum",)` as a mapping. Raises MmebError for a pair without `=`."""
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise MmebError(f"An option is written KEY=VALUE, not {pair!r}.")
        options[key] = value
    return options
