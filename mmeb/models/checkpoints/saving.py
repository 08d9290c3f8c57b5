"""A model's files, so that `load_model` takes the folder back."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from mmeb.models.checkpoints.resolve import configuration_files

SHARD = "5GB"  # a file's maximum size, as other tools write them


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


def copy_configuration(source: Path, folder: Path) -> None:
    """Copy a checkpoint's configuration, tokenizer and image processor: small files, as they are."""
    for path in configuration_files(source):
        shutil.copyfile(path, folder / path.name)
