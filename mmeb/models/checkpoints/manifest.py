"""What a trained model says of itself in `mmeb.json`, so that it loads with no further word. Imports no torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmeb.errors import MmebError

MANIFEST = "mmeb.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a model's folder, None where there is none. Raises MmebError for a broken one."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise MmebError(f"{path} can't be read ({error}): copy the model again, or delete that file.") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("adapter"), str):
        raise MmebError(f"{path} names no adapter: copy the model again, or delete that file.")
    if not isinstance(manifest.get("options", {}), Mapping):
        raise MmebError(f"The options in {path} are no mapping: copy the model again, or delete that file.")
    return manifest


def options_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """The adapter's options with which the model was trained, as `--option` takes them."""
    return {str(name): str(value) for name, value in manifest.get("options", {}).items()}
