"""Options that several commands share."""

import functools
from collections.abc import Callable
from typing import Any

import click

from mmeb.errors import MmebError


def _by_key(context: click.Context, parameter: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    """`("fusion=sum",)` as a mapping. Raises MmebError for a pair without `=`."""
    options = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise MmebError(f"An option is written KEY=VALUE, not {pair!r}.")
        options[key] = value
    return options


ADAPTER = click.option("--adapter", help="The model's family, where its name does not tell.")
ADAPTER_OPTIONS = click.option(
    "--option",
    "options",
    multiple=True,
    callback=_by_key,
    metavar="KEY=VALUE",
    help="An option of the adapter; may be repeated.",
)
DATA = click.option("--data", default="hub", show_default=True, help="hub, instruct, demo, or a folder.")
DATA_REVISION = click.option(
    "--revision", help="Commit or branch of the data repository; by default the published one."
)
OFFLINE = click.option("--offline", is_flag=True, help="Let no call leave the machine.")

_MODEL = (
    click.option("--model", "name", required=True, help="A registered name (`mmeb models`), a hub id, or a folder."),
    ADAPTER,
    click.option("--model-revision", help="Commit or branch of the model's repository."),
    click.option("--device", help="cpu, cuda, cuda:1, …  [default: cuda where there is one]"),
    click.option("--device-map", help="auto: spread a large model over all GPUs."),
    click.option("--dtype", help="float32, bfloat16 or float16.  [default: bfloat16 on a GPU, float32 on the CPU]"),
    ADAPTER_OPTIONS,
    OFFLINE,
)


def model_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options by which a model is named and loaded; `function` gets them as `model`, for `load_model`."""

    @functools.wraps(function)
    def command(model_revision: str | None, **values: Any) -> None:
        names = ("name", "adapter", "device", "device_map", "dtype", "options", "offline")
        model = {"revision": model_revision, **{name: values.pop(name) for name in names}}
        function(model=model, **values)

    for option in reversed(_MODEL):
        command = option(command)
    return command
