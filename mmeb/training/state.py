"""What a training run goes on from: exact weights, optimizer and schedule, after a number of steps.

There is no random state: whatever is drawn follows from the recipe's seed and the step's number.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from mmeb.errors import MmebError
from mmeb.training.recipe import Recipe
from mmeb.training.step import Embedder

_WEIGHTS, _OPTIMIZER, _SCHEDULE = "weights.pt", "optimizer.pt", "scheduler.pt"
_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
# Weights are drawn towards 0, biases and norms are not, as in transformers' Trainer, and neither is a temperature.
_NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)", r"^log_temperature$"]


class TrainingState:
    """A model as the accelerator wraps it, its optimizer and its schedule, after `step` steps.

    The files of a state are those of one process, whatever number wrote them: weights may be sharded (FSDP).
    """

    def __init__(self, embedder: Embedder, recipe: Recipe, accelerator: Accelerator, step: int, folder: Path | None):
        """From the beginning, or from a state in `folder` after `step` steps.

        Raises MmebError for a state of other weights.
        """
        self.step = step
        self._accelerator = accelerator
        trained = {name for name, parameter in embedder.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in embedder.named_buffers()}
        self._changing = embedder.state_dict().keys() & (trained | buffers)
        if folder is not None:  # before anything is wrapped
            weights = torch.load(folder / _WEIGHTS, map_location="cpu", weights_only=True)
            if weights.keys() != self._changing:
                raise MmebError(f"{folder.parent} trains other weights than this run: choose another --output.")
            embedder.load_state_dict(weights, strict=False)
        optimizer = torch.optim.AdamW(_groups(embedder, recipe.weight_decay), lr=recipe.learning_rate, fused=True)
        self.model: nn.Module
        self.model, self.optimizer = accelerator.prepare(embedder, optimizer)
        self.schedule = get_scheduler(_SCHEDULES[recipe.schedule], self.optimizer, recipe.warmup_steps, recipe.steps)
        if folder is not None:
            self._load(folder)

    @property
    def learning_rate(self) -> float:
        """That of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def update(self) -> None:
        """Take an optimizer step by the gradient that the weights have."""
        self.optimizer.step()
        self.schedule.step()
        self.model.zero_grad()
        self.step += 1

    def full_weights(self) -> Mapping[str, Tensor]:
        """All weights by name; gathered, in the first process alone, where they are sharded. To be called in all."""
        if self._is(DistributedType.FSDP):
            return get_model_state_dict(self.model, options=_FULL)  # type: ignore[return-value]
        state: Mapping[str, Tensor] = self._accelerator.get_state_dict(self.model) or {}
        return state

    def module_weights(self, full: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Those of the model's own module where it can't be asked itself."""
        if not (self._is(DistributedType.FSDP) or self._is(DistributedType.DEEPSPEED)):
            return None
        prefix = "weights."  # the module's name in the Embedder
        return {name.removeprefix(prefix): tensor for name, tensor in full.items() if name.startswith(prefix)}

    def optimizer_state(self, output: Path) -> Mapping[str, Any] | Path:
        """By names of weights, gathered; of DeepSpeed a folder in `output` with each process's part. Call it in all."""
        if self._is(DistributedType.DEEPSPEED):
            folder = output / ".deepspeed.part"
            self.model.save_checkpoint(str(folder))  # type: ignore[operator]
            return folder
        return get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=_FULL)

    def write(self, folder: Path, full: Mapping[str, Tensor], optimizer: Mapping[str, Any] | Path) -> None:
        """Write the state to an existing folder; exact, where the model's own files may have less precision."""
        _save({name: full[name] for name in self._changing}, folder / _WEIGHTS)
        if isinstance(optimizer, Path):
            for path in optimizer.iterdir():
                path.rename(folder / path.name)
            optimizer.rmdir()
        else:
            _save(optimizer, folder / _OPTIMIZER)
        _save(self.schedule.state_dict(), folder / _SCHEDULE)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In evaluation mode; what FSDP keeps at its root is there for who calls the model past it."""
        model: Any = self.model
        model.eval()
        if self._is(DistributedType.FSDP):
            model.unshard()
        try:
            yield
        finally:
            if self._is(DistributedType.FSDP):
                model.reshard()
            model.train()

    def _load(self, folder: Path) -> None:
        read = partial(torch.load, map_location="cpu", weights_only=True)
        if self._is(DistributedType.DEEPSPEED):
            self.model.load_checkpoint(str(folder))  # type: ignore[operator]
        else:
            optimizer = read(folder / _OPTIMIZER)
            set_optimizer_state_dict(self.model, self.optimizer.optimizer, optimizer, options=_FULL)
        self.schedule.load_state_dict(read(folder / _SCHEDULE))

    def _is(self, kind: DistributedType) -> bool:
        return bool(self._accelerator.distributed_type == kind)


def _groups(embedder: Embedder, weight_decay: float) -> list[dict[str, Any]]:
    decayed = set(get_parameter_names(embedder, [nn.LayerNorm], _NOT_DECAYED))
    parameters = [(name, each) for name, each in embedder.named_parameters() if each.requires_grad]
    return [
        {"params": [each for name, each in parameters if name in decayed], "weight_decay": weight_decay},
        {"params": [each for name, each in parameters if name not in decayed], "weight_decay": 0.0},
    ]


def _save(content: Any, path: Path) -> None:
    """`torch.save`, with what broke it off (no space, a worker's death) where the library hides it behind its own."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError | RuntimeError):
            raise error.__context__ from None
        raise
