"""Weights from a folder into a module, each in its place."""

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from mmeb.errors import MmebError
from mmeb.models.checkpoints.checkpoint import WEIGHTS, Checkpoint
from mmeb.models.checkpoints.resolve import weight_files

# Buffers 0, 1, 2, … that older library versions saved among the weights.
POSITION_IDS = (".position_ids",)

# What the readers of safetensors and `.bin` raise at a file that is cut off, or no such file at all.
_DAMAGED = (OSError, RuntimeError, SafetensorError, EOFError, ValueError, pickle.UnpicklingError)


def read_config(checkpoint: Checkpoint, model_types: Iterable[str]) -> PreTrainedConfig:
    """The checkpoint's `config.json`. Raises MmebError where it is missing or of none of `model_types`."""
    check_type(checkpoint, model_types)  # before the library, which refuses types that it does not know itself
    try:
        return AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise MmebError(
            f"{checkpoint.source} has a config.json that can't be used ({reason}): download it again."
        ) from None


def load_pretrained(
    model_class: type[PreTrainedModel],
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    ignored: tuple[str, ...] = POSITION_IDS,
) -> PreTrainedModel:
    """A model class of transformers with the checkpoint's weights on `device`: "auto" is all, "meta" no weights.

    Raises MmebError for a weight that is missing, of another shape, or without a place; `ignored` are the endings of
    names that may be left over.
    """
    if device == torch.device("meta"):
        with torch.device(device):
            return model_class(config).eval()
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # the library's own report would alarm over what is ignored
    logging.disable_progress_bar()
    try:
        module, report = model_class.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=dtype,
            device_map="auto" if device == "auto" else {"": torch.device(device)},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that ours is the error that names them
            local_files_only=True,
        )
    except _DAMAGED as error:
        raise _unreadable(checkpoint.path, error) from error
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
    extra = [key for key in report["unexpected_keys"] if not key.endswith(ignored)]
    wrong = {key: (tuple(found), tuple(wanted)) for key, found, wanted in report["mismatched_keys"]}
    _refuse(checkpoint.source, report["missing_keys"], extra, wrong)
    return module.eval()


def load_state_dict(folder: Path, weights: Iterable[str] = WEIGHTS) -> dict[str, Tensor]:
    """All weights of a folder by name, on the CPU: safetensors where there are some, else `.bin`.

    A `.bin` is read as tensors only, no code of it is run. Raises MmebError where there are none or a file is damaged.
    """
    state: dict[str, Tensor] = {}
    for path in weight_files(folder, weights):
        try:
            state |= load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
        except _DAMAGED as error:
            raise _unreadable(path, error) from error
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
    wanted = module.state_dict()
    wrong = {
        key: (tuple(placed[key].shape), tuple(wanted[key].shape))
        for key in placed.keys() & wanted.keys()
        if placed[key].shape != wanted[key].shape
    }
    extra = [key for key in placed.keys() - wanted.keys() if not key.endswith(ignored)]
    missing = [key for key in wanted.keys() - placed.keys() if not key.endswith(ignored)]
    _refuse(source, missing, extra, wrong)
    kept = {key: placed[key] for key in placed.keys() & wanted.keys()}
    module.load_state_dict(kept, strict=False, assign=assign)


def count_parameters(folder: Path, weights: Iterable[str] = WEIGHTS) -> int:
    """How many numbers the weights of a folder hold, from their headers alone."""
    return sum(_count(path) for path in weight_files(folder, weights))


def check_type(checkpoint: Checkpoint, model_types: Iterable[str]) -> None:
    """Raises MmebError where the checkpoint's `config.json` is missing or of none of `model_types`."""
    if checkpoint.base is not None:
        raise MmebError(f"{checkpoint.source} is a LoRA, which this adapter can't load: name another --adapter.")
    try:
        model_type = json.loads((checkpoint.path / "config.json").read_text())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MmebError(f"{checkpoint.source} has no config.json that tells what it is: download it again.") from None
    if model_type not in model_types:
        wanted = " or ".join(model_types)
        raise MmebError(f"{checkpoint.source} is a {model_type} model, not {wanted}: name another --adapter.")


def _count(path: Path) -> int:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        else:
            state = torch.load(path, "meta", weights_only=True, mmap=zipfile.is_zipfile(path))
            shapes = [tensor.shape for tensor in state.values()]
    except _DAMAGED as error:
        raise _unreadable(path, error) from error
    return sum(torch.Size(shape).numel() for shape in shapes)


def _unreadable(path: Path, error: Exception) -> MmebError:
    if isinstance(error, pickle.UnpicklingError):
        return MmebError(f"{path} holds more than tensors, or is damaged: download the model again.")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return MmebError(f"The weights in {path} can't be read ({reason}): download the model again.")


def _refuse(
    source: str,
    missing: Iterable[str],
    extra: Iterable[str],
    wrong: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
) -> None:
    """One sentence that names the first few weights of each fault, where there is one."""
    faults = []
    if missing := sorted(missing):
        faults.append(f"the model lacks {len(missing)} weights ({_few(missing)})")
    if extra := sorted(extra):
        faults.append(f"it has no place for {len(extra)} ({_few(extra)})")
    if wrong:
        shapes = [f"{key} is {found}, not {wanted}" for key, (found, wanted) in sorted(wrong.items())]
        faults.append(f"{len(wrong)} are of another shape ({_few(shapes)})")
    if faults:
        raise MmebError(
            f"The weights of {source} do not fit its configuration: {', '.join(faults)}. Download the model again, "
            "or name the adapter that it is for."
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
