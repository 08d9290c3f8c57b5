"""The library's training loop, with our step, our checkpoints and our log."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from mmeb.data.train.dataset import TrainSubset
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.processes import Processes
from mmeb.runtime.signals import StoppedError, StopRequest
from mmeb.runtime.workers import default_workers
from mmeb.training import checkpoint
from mmeb.training.embedder import Embedder
from mmeb.training.grad_cache import contrastive_step
from mmeb.training.monitor import Window, say
from mmeb.training.recipe import Recipe, RunSettings
from mmeb.training.sampler import batches_of
from mmeb.training.step import StepBatch
from mmeb.training.step_loader import StepLoader

_WEIGHTS = "weights.pt"
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Save(Protocol):
    """Writes a model's own files to a folder; `state` is that of its module where it can't be asked itself."""

    def __call__(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None: ...


Evaluate = Callable[[int], Mapping[str, float]]


class ContrastiveTrainer(Trainer):  # type: ignore[misc]
    """One step per global batch, until the last one or a request to stop."""

    def __init__(
        self,
        model: EmbeddingModel,
        subsets: Sequence[TrainSubset],
        recipe: Recipe,
        settings: RunSettings,
        *,
        identity: Mapping[str, Any],
        resumed: int,
        processes: Processes,
        stop: StopRequest,
        save: Save,
        evaluate: Evaluate | None,
        arguments: TrainingArguments,
        callbacks: list[TrainerCallback],
    ) -> None:
        self._subsets = subsets
        self._recipe = recipe
        self._settings = settings
        self._identity = identity
        self._resumed = resumed
        self._processes = processes
        self._stop = stop
        self._stop_agreed = False
        self._save_files = save
        self._score = evaluate
        self._window = Window()
        self._said: set[str] = set()
        self._settled = resumed
        temperature = recipe.temperature if recipe.learn_temperature else None
        super().__init__(model=Embedder(model, temperature), args=arguments, callbacks=callbacks)
        self._embedding_model = model
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in self.model.named_buffers()}
        self._changing = self.model.state_dict().keys() & (trained | buffers)
        self.remove_callback(PrinterCallback)
        if self.is_fsdp_enabled and not self.accelerator.is_fsdp2:
            raise MmebError("Training takes FSDP in its version 2: set fsdp_version (version, in --fsdp's file) to 2.")

    def run(self, state: Path | None) -> None:
        """Train to the last step, from the beginning or from a checkpoint's state. Raises StoppedError."""
        if state is not None:
            self._load_weights(state)
        if state is not None and self._resumed == self._recipe.steps:  # broken between the last step and the end
            self.state = TrainerState.load_from_json(str(state / TRAINER_STATE_NAME))
            return
        self.train(None if state is None else str(state))
        step, steps = self.state.global_step, self._recipe.steps
        if step < steps:
            raise StoppedError(
                f"Stopped at step {step} of {steps}, as asked: the same command with --resume goes on from "
                f"{self._settings.output / f'checkpoint-{step}'}."
            )

    def finish(self) -> None:
        """Write the model's files to the output folder."""
        whole, output = self._whole_state(), self._settings.output
        self._processes.on_first(
            lambda: checkpoint.finish(
                output, self._identity, lambda folder: self._save_files(folder, self._module_state(whole))
            )
        )

    def get_train_dataloader(self) -> Any:
        """Steps, from the one that is resumed on."""
        processes, workers = self._processes, self._settings.workers
        if workers is None:
            workers = default_workers(self.args.device.type, processes.local_size)
        return StepLoader(
            self._embedding_model,
            self._subsets,
            self._recipe,
            batches_of(self._subsets, self._recipe, self._resumed),
            rank=processes.rank,
            world=processes.size,
            workers=workers,
        )

    def training_step(self, model: nn.Module, inputs: StepBatch, *_: Any, **__: Any) -> Tensor:
        model.train()
        outcome = contrastive_step(
            model,
            inputs,
            self._recipe,
            self.accelerator,
            stop=self._stop.made,
            skip_bad_rows=self._settings.skip_bad_rows,
        )
        if not math.isfinite(outcome.loss):
            raise self._not_finite("loss")
        self._stop_agreed = outcome.stop
        for complaint in outcome.complaints:
            if self._processes.rank == 0 and complaint not in self._said:
                say(f"Left out: {complaint}")
            self._said.add(complaint)
        self._window.add(
            {
                "loss": outcome.loss,
                **asdict(outcome.measures),
                "temperature": outcome.temperature,
                "items": outcome.items,
                "tokens": outcome.tokens,
                "skipped_rows": len(outcome.dead_rows),
            }
        )
        return torch.tensor(outcome.loss, device=self.args.device)

    def _not_finite(self, what: str) -> MmebError:
        step = self.state.global_step
        draw = next(iter(batches_of(self._subsets, self._recipe, step)))
        rows = [self._subsets[subset].origin(row) for subset, row in draw.rows]
        found = checkpoint.checkpoints(self._settings.output)
        kept = f"{found[-1].name} is the last good one" if found else "there is no checkpoint yet"
        return MmebError(
            f"The {what} of step {step + 1} is no longer finite, in a batch of {len(rows)} rows that begins with "
            f"{'; '.join(rows[:3])}: look at these rows, or train with a lower learning rate or a higher temperature; "
            f"{kept}."
        )

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """The loss is a mean over the global batch: nothing is left to be scaled."""

    def floating_point_ops(self, inputs: StepBatch) -> int:
        return 0  # the library would estimate it from tokens that it looks for in vain

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Weights are drawn towards 0, biases and norms are not, and neither is a temperature."""
        return [name for name in super().get_decay_parameter_names(model) if name != "log_temperature"]

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm))
        if not math.isfinite(norm):
            raise self._not_finite("gradient")
        self._window.add({"grad_norm": norm})
        return norm

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, **self._window.close()} if "loss" in logs else logs, start_time)

    def _maybe_log_save_evaluate(self, *arguments: Any, **options: Any) -> None:
        """After a step: a line of the log, a checkpoint and scores, where they are due."""
        step, settings = self.state.global_step, self._settings
        if step == self._settled:  # asked once more at the end
            return
        self._settled = step
        last = step == self._recipe.steps
        saves = self._stop_agreed or (settings.save_every is not None and (last or step % settings.save_every == 0))
        # A resumed run begins a new line: so does an unbroken one, and both log the same.
        self.control.should_log = saves or last or step % settings.log_every == 0
        self.control.should_save = saves
        super()._maybe_log_save_evaluate(*arguments, **options)
        scores = self._score is not None and settings.eval_every is not None and step % settings.eval_every == 0
        if scores and self._score is not None:
            with self._evaluating():
                results = self._score(step)
            self.log({f"eval/{name}": value for name, value in results.items()})
        if saves or scores:
            self._window.start()
        if self._stop_agreed:
            self.control.should_training_stop = True

    def _save_checkpoint(self, *_: Any) -> None:
        whole, optimizer = self._whole_state(), self._optimizer_state()
        self._processes.on_first(lambda: self._write_checkpoint(whole, optimizer))

    def _write_checkpoint(self, whole: Mapping[str, Tensor], optimizer: Mapping[str, Any] | Path) -> None:
        output = self._settings.output
        with checkpoint.writing(output, self.state.global_step, self._identity) as folder:
            self._save_files(folder, self._module_state(whole))
            state = folder / checkpoint.STATE
            # The model's own files may hold them in less precision.
            checkpoint.save_tensors({name: whole[name] for name in self._changing}, state / _WEIGHTS)
            if isinstance(optimizer, Path):
                for path in optimizer.iterdir():
                    path.rename(state / path.name)
                optimizer.rmdir()
            else:
                checkpoint.save_tensors(optimizer, state / OPTIMIZER_NAME)
            checkpoint.save_tensors(self.lr_scheduler.state_dict(), state / SCHEDULER_NAME)
            self.state.save_to_json(str(state / TRAINER_STATE_NAME))
        checkpoint.rotate(output, self._settings.keep)

    def _whole_state(self) -> Mapping[str, Tensor]:
        """All weights by name; gathered, in the first process alone, where they are dealt out."""
        whole: Mapping[str, Tensor]
        if self.is_fsdp_enabled:
            whole = get_model_state_dict(self.model, options=_WHOLE)  # type: ignore[assignment]
        elif self.is_deepspeed_enabled:
            whole = self.accelerator.get_state_dict(self.model_wrapped) or {}
        else:
            whole = self.model.state_dict()
        return whole

    def _module_state(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The state of the model's own module where it can't be asked itself."""
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            return None
        own = "weights."  # the module's name in the Embedder
        return {name.removeprefix(own): tensor for name, tensor in whole.items() if name.startswith(own)}

    def _optimizer_state(self) -> Mapping[str, Any] | Path:
        """The optimizer's state by names of weights, gathered; of DeepSpeed, a folder with each process's part."""
        if self.is_deepspeed_enabled:
            folder = self._settings.output / ".deepspeed.part"
            self.model_wrapped.save_checkpoint(str(folder))
            return folder
        return get_optimizer_state_dict(self.model, self.optimizer.optimizer, options=_WHOLE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Nothing: `run` has loaded the weights before anything is wrapped."""

    def _load_weights(self, state: Path) -> None:
        weights = torch.load(state / _WEIGHTS, map_location="cpu", weights_only=True)
        if weights.keys() != self._changing:
            raise MmebError(f"{state.parent} trains other weights than this run: choose another --output.")
        self.model.load_state_dict(weights, strict=False)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        read = partial(torch.load, map_location="cpu", weights_only=True)
        optimizer = read(Path(checkpoint) / OPTIMIZER_NAME)
        set_optimizer_state_dict(self.model, self.optimizer.optimizer, optimizer, options=_WHOLE)
        self.lr_scheduler.load_state_dict(read(Path(checkpoint) / SCHEDULER_NAME))

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """In evaluation mode; what FSDP keeps at its root is there for who calls the model past it."""
        self.model.eval()
        if self.is_fsdp_enabled:
            self.model.unshard()
        try:
            yield
        finally:
            if self.is_fsdp_enabled:
                self.model.reshard()
            self.model.train()
