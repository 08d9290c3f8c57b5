"""Weights: from a folder into a module, each in its place, and back."""

import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from mmeb.errors import MmebError
from mmeb.models.checkpoints.checkpoint import WEIGHTS
from mmeb.models.checkpoints.resolve import weight_files

# Buffers 0, 1, 2, … that older library versions saved among the weights.
POSITION_IDS = (".position_ids",)
SHARD = "5GB"  # a file's maximum size, as other tools write them

# What the readers of safetensors and `.bin` raise at a file that is cut off, or no such file at all.
DAMAGED = (OSError, RuntimeError, SafetensorError, EOFError, ValueError, pickle.UnpicklingError)


def load_state_dict(folder: Path, weights: Iterable[str] = WEIGHTS) -> dict[str, Tensor]:
    """All weights of a folder by name, on the CPU: safetensors where there are some, else `.bin`.

    A `.bin` is read as tensors only, no code of it is run. Raises MmebError where there are none or a file is damaged.
    """
    state: dict[str, Tensor] = {}
    for path in weight_files(folder, weights):
        try:
            state |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        except DAMAGED as error:
            raise unreadable(path, error) from error
    return state


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    rename: Callable[[str], str] = str,
    ignored: tuple[str, ...] = POSITION_IDS,
    assign: bool = False,
) -> None:
    """Put weights into a module, in place, in the module's dtype and on its device.

    With `assign` they become the module's own tensors as they are: for a module that was built without memory.
    `rename` gives a checkpoint's key the module's name for it; `ignored` are the endings of keys that may be left
    over. Raises MmebError for a parameter without its key, a key without its place, and another shape.
    """
    placed = {rename(key): tensor for key, tensor in state.items()}
    expected = module.state_dict()
    wrong = {
        key: (tuple(placed[key].shape), tuple(expected[key].shape))
        for key in placed.keys() & expected.keys()
        if placed[key].shape != expected[key].shape
    }
    extra = [key for key in placed.keys() - expected.keys() if not key.endswith(ignored)]
    missing = [key for key in expected.keys() - placed.keys() if not key.endswith(ignored)]
    refuse_misfits(source, missing, extra, wrong)
    kept = {key: placed[key] for key in placed.keys() & expected.keys()}
    module.load_state_dict(kept, strict=False, assign=assign)


def save_weights(module: nn.Module, folder: Path, stem: str, state: Mapping[str, Tensor] | None = None) -> None:
    """Write all weights of a module as `<stem>.safetensors`, in shards where they are many, to an existing folder.

    `state` is the module's state where it can't be asked itself: gathered from many processes, or of less precision.
    """
    save_torch_state_dict(
        {name: tensor.detach() for name, tensor in (module.state_dict() if state is None else state).items()},
        folder,
        filename_pattern=f"{stem}{{suffix}}.safetensors",
        max_shard_size=SHARD,
        metadata={"format": "pt"},
    )


def count_parameters(folder: Path, weights: Iterable[str] = WEIGHTS) -> int:
    """How many numbers the weights of a folder hold, from their headers alone."""
    return sum(_count(path) for path in weight_files(folder, weights))


def unreadable(path: Path, error: Exception) -> MmebError:
    """One sentence for what a reader of weights raised."""
    if isinstance(error, pickle.UnpicklingError):
        return MmebError(f"{path} holds more than tensors, or is damaged: download the model again.")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return MmebError(f"The weights in {path} can't be read ({reason}): download the model again.")


def refuse_misfits(
    source: str,
    missing: Iterable[str],
    extra: Iterable[str],
    wrong: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """Raise MmebError, one sentence that names the first few weights of each fault, where there is one."""
    faults = []
    if missing := sorted(missing):
        faults.append(f"the model lacks {len(missing)} weights ({_few(missing)})")
    if extra := sorted(extra):
        faults.append(f"it has no place for {len(extra)} ({_few(extra)})")
    if wrong:
        shapes = [f"{key} is {found}, not {expected}" for key, (found, expected) in sorted(wrong.items())]
        faults.append(f"{len(wrong)} are of another shape ({_few(shapes)})")
    if faults:
        raise MmebError(
            f"The weights of {source} do not fit its configuration: {', '.join(faults)}. Download the model again, "
            "or name the adapter that it is for."
        )


def _count(path: Path) -> int:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        else:
            state = torch.load(path, "meta", weights_only=True, mmap=zipfile.is_zipfile(path))
            shapes = [tensor.shape for tensor in state.values()]
    except DAMAGED as error:
        raise unreadable(path, error) from error
    return sum(torch.Size(shape).numel() for shape in shapes)


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
