"""Contrastive training, on the library's trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from mmeb.data.train import TrainPair
from mmeb.errors import MmebError
from mmeb.models.base import Batch, EmbeddingModel
from mmeb.training.config import TrainConfig
from mmeb.training.loss import info_nce
from mmeb.training.sampler import HomogeneousSampler


def train(
    model: EmbeddingModel, subsets: Sequence[Sequence[TrainPair]], config: TrainConfig, *, progress: bool = False
) -> list[float]:
    """Train `model` in place on pairs by subset; returns the mean losses of ten steps each.

    Raises MmebError where a loss is not finite, and for a subset that is smaller than a batch.
    """
    losses = _Losses(config.steps, progress)
    trainer = _ContrastiveTrainer(
        embedder=_Embedder(model),
        subsets=subsets,
        config=config,
        args=TrainingArguments(
            output_dir=str(config.output),
            max_steps=config.steps,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup_steps,
            weight_decay=config.weight_decay,
            seed=config.seed,
            logging_steps=min(10, config.steps),
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=model.device.type == "cpu",
        ),
        callbacks=[losses],
    )
    trainer.remove_callback(PrinterCallback)
    model.module.train()
    try:
        trainer.train()
    finally:
        model.module.eval()
    return losses.values


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
        positives = [pair.positive for pair in pairs]
        numbers = {item: number for number, item in enumerate(dict.fromkeys(positives))}
        ids = torch.tensor([numbers[item] for item in positives])
        return {
            "query": self.model.preprocess([pair.query for pair in pairs]),
            "candidate": self.model.preprocess(positives),
            "same": ids[:, None] == ids[None, :],
        }


class _ContrastiveTrainer(Trainer):  # type: ignore[misc]
    def __init__(
        self, *, embedder: _Embedder, subsets: Sequence[Sequence[TrainPair]], config: TrainConfig, **arguments: Any
    ) -> None:
        self._config = config
        self._sizes = [len(subset) for subset in subsets]
        pairs = [pair for subset in subsets for pair in subset]
        super().__init__(model=embedder, train_dataset=pairs, data_collator=_Collator(embedder.model), **arguments)

    def get_train_dataloader(self) -> Any:
        config = self._config
        sampler = HomogeneousSampler(self._sizes, config.batch_size, config.steps, config.seed)
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=1,
            multiprocessing_context="fork",  # the worker shares the model's memory and touches no weights
        )
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        device = self.args.device
        queries = model(inputs["query"].to(device))
        candidates = model(inputs["candidate"].to(device))
        loss = info_nce(queries, candidates, inputs["same"].to(device), self._config.temperature)
        if not torch.isfinite(loss):
            raise MmebError("The loss is no longer finite: train with a lower learning rate or a higher temperature.")
        return loss


class _Losses(TrainerCallback):  # type: ignore[misc]
    """Keeps the logged losses, and shows them with a bar."""

    def __init__(self, steps: int, progress: bool) -> None:
        self.values: list[float] = []
        self._bar = tqdm(total=steps, desc="train", unit="step", disable=None if progress else True)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._bar.update()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.values.append(logs["loss"])
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._bar.close()
