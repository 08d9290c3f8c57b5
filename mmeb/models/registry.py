"""Which adapters and models there are: names to code and checkpoints. Imports no torch."""

import difflib
import importlib
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb.errors import MmebError
from mmeb.models.checkpoints.manifest import options_of, read_manifest
from mmeb.models.entries import ENTRIES, ModelEntry

if TYPE_CHECKING:
    from mmeb.models.base import EmbeddingModel

GROUP = "mmeb.models"  # the entry points by which other packages add adapters and models

ADAPTERS: dict[str, str] = {
    "clip": "mmeb.models.adapters.clip:ClipModel",
    "open_clip": "mmeb.models.adapters.open_clip:OpenClipModel",
    "siglip": "mmeb.models.adapters.siglip:SiglipModel",
    "blip": "mmeb.models.adapters.blip:BlipModel",
    "blip2": "mmeb.models.adapters.blip2:Blip2Model",
    "e5v": "mmeb.models.adapters.e5_v:E5VModel",
    "phi35v": "mmeb.models.adapters.vlm2vec:Phi35VModel",
    "llava-next": "mmeb.models.adapters.vlm2vec:LlavaNextModel",
    "qwen2-vl": "mmeb.models.adapters.vlm2vec:Qwen2VLModel",
    "qwen2.5-vl": "mmeb.models.adapters.vlm2vec:Qwen25VLModel",
    "demo": "mmeb.models.adapters.demo:DemoModel",
}

# Which adapter a checkpoint's `model_type` means, where there is but one. LLaVA-NeXT is VLM2Vec's and E5-V's.
ADAPTER_BY_MODEL_TYPE = {
    "clip": "clip",
    "siglip": "siglip",
    "siglip2": "siglip",
    "blip": "blip",
    "blip-2": "blip2",
    "phi3_v": "phi35v",
    "qwen2_vl": "qwen2-vl",
    "qwen2_5_vl": "qwen2.5-vl",
    "mmeb-demo": "demo",
}


def list_entries() -> tuple[ModelEntry, ...]:
    """All registered models, our own first."""
    return (*ENTRIES, *(entry for plugin in _plugins() for entry in _plugin_entries(plugin)))


def list_adapters() -> list[str]:
    """The short names of all adapters, our own first."""
    others = [plugin.name for plugin in _plugins() if isinstance(_load(plugin), type)]
    return [*ADAPTERS, *others]


def find_entry(name: str, adapter: str | None = None) -> ModelEntry:
    """The registered model of this name or hub id; an entry made for the purpose for another hub id or a folder.

    `adapter`, where given, goes over the entry's. The adapter of a hub id may be empty: its `config.json`, once
    downloaded, tells. Raises MmebError, with the nearest names, for a name that is none of these.
    """
    entry = _registered(name) or _unregistered(name)
    if adapter is None or adapter == entry.adapter:
        return entry
    return replace(entry, adapter=adapter, options={})  # another adapter has options of its own


def adapter_class(adapter: str) -> "type[EmbeddingModel]":
    """The class of an adapter: a short name, or `module:Class`. Raises MmebError where there is none."""
    if adapter in ADAPTERS:
        target = ADAPTERS[adapter]
    elif ":" in adapter:
        target = adapter
    else:
        for plugin in _plugins():
            if plugin.name == adapter and isinstance(found := _load(plugin), type):
                return found
        known = list_adapters()
        raise MmebError(f"There is no adapter {adapter!r}: {_nearest(adapter, known) or ', '.join(known) + '.'}")
    module, _, attribute = target.partition(":")
    try:
        loaded: type[EmbeddingModel] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MmebError(f"The adapter {adapter} can't be imported from {target}: {error}.") from error
    return loaded


def _registered(name: str) -> ModelEntry | None:
    for entry in ENTRIES:
        if name == entry.name:
            return entry
    for entry in ENTRIES:
        if name == entry.source:
            return replace(entry, name=name)
    for plugin in _plugins():  # loaded only where our own names don't do: they may import anything
        for entry in _plugin_entries(plugin):
            if name in (entry.name, entry.source):
                return replace(entry, name=name)
    return None


def _unregistered(name: str) -> ModelEntry:
    folder = Path(name).expanduser()
    if folder.is_dir():
        manifest = read_manifest(folder) or {}
        return ModelEntry(name, manifest.get("adapter", ""), str(folder.resolve()), options=options_of(manifest))
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and all(name.split("/")):
        return ModelEntry(name, "", name)
    if "/" in name:
        raise MmebError(f"There is no folder {name}: --model takes a registered name, a hub id or a folder.")
    near = _nearest(name, [entry.name for entry in list_entries()])
    raise MmebError(f"There is no model {name!r}: {near or '`mmeb models` lists those that have a name.'}")


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else ""


@cache
def _plugins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _load(plugin: EntryPoint) -> object:
    try:
        return plugin.load()
    except Exception as error:
        package = plugin.dist.name if plugin.dist else plugin.value
        raise MmebError(
            f"The entry point {plugin.name} of the package {package} can't be loaded ({error}): update or remove it."
        ) from error


def _plugin_entries(plugin: EntryPoint) -> tuple[ModelEntry, ...]:
    """The models that an entry point adds: its value is an adapter's class, a ModelEntry or several of them."""
    loaded = _load(plugin)
    if isinstance(loaded, type):
        return ()
    found = (loaded,) if isinstance(loaded, ModelEntry) else loaded
    if isinstance(found, tuple | list) and all(isinstance(entry, ModelEntry) for entry in found):
        return tuple(found)
    raise MmebError(f"The entry point {plugin.name} ({plugin.value}) is neither an adapter's class nor a ModelEntry.")
