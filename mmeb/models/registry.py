"""Which adapters and models there are: names to code and checkpoints. Imports no torch."""

import importlib
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from mmeb.errors import MmebError
from mmeb.inputs import suggest
from mmeb.models.checkpoints.checkpoint import MANIFEST, options_of, read_manifest
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
    """The registered model of this name or hub id; a new entry for another hub id or a folder.

    `adapter`, where given, goes over the entry's. The adapter of a hub id may be empty: its `config.json`, once
    downloaded, tells. Raises MmebError, with the nearest names, for a name that is none of these.
    """
    entry = _registered(name) or _unregistered(name, adapter)
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
        raise MmebError(
            f"There is no adapter {adapter!r}: {suggest(adapter, known, n=3, cutoff=0.4) or ', '.join(known) + '.'}"
        )
    module, _, attribute = target.partition(":")
    try:
        loaded: type[EmbeddingModel] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise MmebError(f"The adapter {adapter} can't be imported from {target}: {error}.") from error
    return loaded


def with_manifest(entry: ModelEntry, folder: Path, adapter: str | None = None) -> ModelEntry:
    """The entry with the adapter and the options that the folder's `mmeb.json` names, where it has one.

    The user's `adapter` goes over the manifest's. Nothing that a checkpoint names is imported: raises MmebError where
    the manifest alone names anything but a registered adapter.
    """
    manifest = read_manifest(folder)
    if manifest is None or adapter not in (None, manifest["adapter"]):
        return entry
    named = manifest["adapter"]
    if adapter is None and named not in ADAPTERS and named not in (plugin.name for plugin in _plugins()):
        raise MmebError(
            f"The {MANIFEST} of {entry.source} names the adapter {named!r}, which is not registered: give it with "
            "--adapter if you trust its code."
        )
    return replace(entry, adapter=named, options=options_of(manifest))


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


def _unregistered(name: str, adapter: str | None) -> ModelEntry:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return with_manifest(ModelEntry(name, "", str(folder.resolve())), folder, adapter)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and all(name.split("/")):
        return ModelEntry(name, "", name)
    if "/" in name:
        raise MmebError(f"There is no folder {name}: --model takes a registered name, a hub id or a folder.")
    near = suggest(name, [entry.name for entry in list_entries()], n=3, cutoff=0.4)
    raise MmebError(f"There is no model {name!r}: {near or '`mmeb models` lists those that have a name.'}")


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
