"""A LoRA and its base as one model, proved to embed the same."""

import gc
import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.encode import encode
from mmeb.evaluation.probes import probes
from mmeb.files import replacing_folder
from mmeb.models.base import EmbeddingModel
from mmeb.models.checkpoints.checkpoint import MANIFEST, read_manifest
from mmeb.models.checkpoints.resolve import ADAPTER_CONFIG
from mmeb.models.loading import load_model

# How much a component of a unit vector may differ. Weights in half precision are rounded once more where an adapter is
# added to them: 2^-9 of each weight in bfloat16, 2^-12 in float16.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def merge(
    run: Path,
    output: Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    offline: bool = False,
    tolerance: float | None = None,
) -> float:
    """Write the adapter in `run`, merged into its base, to the new folder `output`.

    Returns the largest difference of a component between the embeddings of the probe items by the adapter beside its
    base and those by the folder that was written. Raises MmebError, and writes nothing, where that is above
    `tolerance` (by default that of the dtype), where `run` holds no adapter, and where `output` is there already.
    """
    if not (run / ADAPTER_CONFIG).is_file():
        what = "a full model, not a LoRA, and needs no merging" if run.is_dir() else "no folder"
        raise MmebError(f"{run} is {what}: give the folder of a run that trained a LoRA, or one of its checkpoints.")
    if output.exists():
        raise MmebError(f"{output} already exists: choose another --output.")
    items = list(probes().values())
    how = {"device": device, "dtype": dtype, "offline": offline}
    beside = load_model(str(run), options={"lora": "keep"}, **how)  # type: ignore[arg-type]
    expected = _embed(beside, items)
    del beside
    merged = load_model(str(run), options={"lora": "merge"}, **how)  # type: ignore[arg-type]
    limit = TOLERANCE[merged.dtype] if tolerance is None else tolerance
    with replacing_folder(output) as temporary:
        merged.save(temporary)
        _write_manifest(run, temporary, merged)
        adapter = merged.adapter
        del merged
        gc.collect()
        again = load_model(str(temporary), adapter=adapter, **how)  # type: ignore[arg-type]
        difference = float(np.abs(_embed(again, items) - expected).max())
        if not difference <= limit:
            raise MmebError(
                f"The merged model does not embed as the adapter beside its base: a component differs by "
                f"{difference:.1e}, more than {limit:.0e}; nothing is written. Merge with --dtype float32."
            )
    return difference


def _embed(model: EmbeddingModel, items: list[Item]) -> NDArray[np.float32]:
    return encode(model, items, batch_size=1, workers=0)


def _write_manifest(run: Path, folder: Path, merged: EmbeddingModel) -> None:
    manifest = read_manifest(run) or {"adapter": merged.adapter}
    manifest["merged_from"] = {"folder": run.resolve().name, "revision": merged.checkpoint.revision}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
