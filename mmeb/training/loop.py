"""The library's training loop, with our step, our checkpoints and our log."""

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from mmeb.data.train import TrainPair
from mmeb.errors import MmebError
from mmeb.evaluation.encode import default_workers
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.training import checkpoint
from mmeb.training.collective import first_alone
from mmeb.training.loss import info_nce
from mmeb.training.monitor import Window
from mmeb.training.recipe import Recipe
from mmeb.training.sampler import HomogeneousSampler
from mmeb.training.settings import RunSettings
from mmeb.training.stop import StoppedError, StopRequest, leave_to_parent

_WEIGHTS = "weights.pt"
_PREFETCH = 2  # steps that each worker prepares ahead

Save = Callable[[Path], None]
Evaluate = Callable[[int], Mapping[str, float]]


class _Embedder(nn.Module):
    """The model's forward pass as a module, which is what the library prepares, moves and wraps."""

    def __init__(self, model: EmbeddingModel) -> None:
        super().__init__()
        self.weights = model.module
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.embed(batch)


@dataclass(frozen=True)
class _Collator:
    """Pairs to what a step takes: both sides' batches, and (n, n) which candidates equal a query's own one."""

    model: EmbeddingModel

    def __call__(self, pairs: Sequence[TrainPair]) -> dict[str, Any]:
        positives = [pair.positives[0] for pair in pairs]
        numbers = {item: number for number, item in enumerate(dict.fromkeys(positives))}
        ids = torch.tensor([numbers[item] for item in positives])
        return {
            "query": self.model.preprocess([pair.query for pair in pairs]),
            "candidate": self.model.preprocess(positives),
            "same": ids[:, None] == ids[None, :],
        }


class ContrastiveTrainer(Trainer):  # type: ignore[misc]
    """One step per global batch; `skipped_rows` counts the rows that were left out."""

    def __init__(
        self,
        model: EmbeddingModel,
        subsets: Sequence[Sequence[TrainPair]],
        recipe: Recipe,
        settings: RunSettings,
        *,
        identity: Mapping[str, Any],
        resumed: int,
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
        self._stop = stop
        self._stop_agreed = False
        self._save_files = save
        self._score = evaluate
        self._window = Window()
        self._settled = resumed
        self.skipped_rows = 0
        super().__init__(model=_Embedder(model), args=arguments, data_collator=_Collator(model), callbacks=callbacks)
        self.remove_callback(PrinterCallback)

    def run(self, state: Path | None) -> None:
        """Train to the last step, from the beginning or from a checkpoint's state. Raises StoppedError."""
        if self._resumed == self._recipe.steps:  # broken between the last step and the end
            self._load_from_checkpoint(str(state))
            return
        self.train(None if state is None else str(state))
        step, steps = self.state.global_step, self._recipe.steps
        if step < steps:
            raise StoppedError(
                f"Stopped at step {step} of {steps}, as asked: the same command with --resume goes on from "
                f"{self._settings.output / f'checkpoint-{step}'}."
            )

    def get_train_dataloader(self) -> Any:
        recipe, settings = self._recipe, self._settings
        sizes = [len(subset) for subset in self._subsets]
        sampler = list(HomogeneousSampler(sizes, recipe.batch_size, recipe.steps, recipe.seed))[self._resumed :]
        pairs = [pair for subset in self._subsets for pair in subset]
        workers = default_workers(self.args.device.type) if settings.workers is None else settings.workers
        return DataLoader(
            pairs,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=workers,
            prefetch_factor=_PREFETCH if workers else None,
            # Forked workers share the model's memory; none of them touches its weights or the device.
            multiprocessing_context=multiprocessing.get_context("fork") if workers else None,
            worker_init_fn=leave_to_parent,
        )

    def training_step(self, model: nn.Module, inputs: Any, *_: Any, **__: Any) -> Tensor:
        model.train()
        device = self.args.device
        queries = model(inputs["query"].to(device))
        candidates = model(inputs["candidate"].to(device))
        loss = info_nce(queries, candidates, inputs["same"].to(device), self._recipe.temperature)
        self.accelerator.backward(loss)
        accuracy = (queries @ candidates.T).argmax(dim=1) == torch.arange(len(queries))
        self._stop_agreed = self._stop.made
        self._window.add({"loss": loss.item(), "accuracy": accuracy.float().mean().item(), "items": 2 * len(queries)})
        if not torch.isfinite(loss):
            raise MmebError("The loss is no longer finite: train with a lower learning rate or a higher temperature.")
        return loss.detach()

    def _get_num_items_in_batch(self, *_: Any) -> None:
        """The loss is a mean over the global batch: nothing is left to be scaled."""

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> float:
        norm = float(super()._get_grad_norm(model, grad_norm))
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
        first_alone(self._write_checkpoint)

    def _write_checkpoint(self) -> None:
        output = self._settings.output
        with checkpoint.writing(output, self.state.global_step, self._identity) as folder, self._evaluating():
            self._save_files(folder)
            state = folder / checkpoint.STATE
            checkpoint.save_tensors(self._weights(), state / _WEIGHTS)
            checkpoint.save_tensors(self.optimizer.state_dict(), state / OPTIMIZER_NAME)
            checkpoint.save_tensors(self.lr_scheduler.state_dict(), state / SCHEDULER_NAME)
            self.state.save_to_json(str(state / TRAINER_STATE_NAME))
        checkpoint.rotate(output, self._settings.keep)

    def _weights(self) -> dict[str, Tensor]:
        """What training changes, as it is: the model's own files may hold it in less precision."""
        trained = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
        buffers = {name for name, _ in self.model.named_buffers()}
        return {name: tensor for name, tensor in self.model.state_dict().items() if name in trained | buffers}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / _WEIGHTS
        weights = torch.load(path, map_location="cpu", weights_only=True)
        if weights.keys() != self._weights().keys():
            raise MmebError(f"{path.parent.parent} trains other weights than this run: choose another --output.")
        self.model.load_state_dict(weights, strict=False)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.model.eval()
        try:
            yield
        finally:
            self.model.train()
