"""Contrastive training, on the library's trainer."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from mmeb.data.train.dataset import TrainSubset
from mmeb.errors import MmebError
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.dataloader import plain_worker_errors
from mmeb.runtime.processes import joined
from mmeb.runtime.signals import listening
from mmeb.training import checkpoint
from mmeb.training.loop import ContrastiveTrainer, Evaluate, Save
from mmeb.training.monitor import Monitor, say
from mmeb.training.recipe import Recipe, RunSettings

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
_ONWARD = "The last checkpoint is kept, the same command with --resume goes on from there."


@dataclass(frozen=True)
class TrainOutcome:
    """What a run came to.

    `resumed` is the step that it went on from, 0 where it began at the beginning. `log` has the measures of the whole
    run, as in `log.jsonl`; `skipped_rows` counts the rows left out of it for an image that can't be read. `seconds` are
    those of this process.
    """

    steps: int
    resumed: int
    log: list[dict[str, float]]
    skipped_rows: int
    seconds: float


def train(
    model: EmbeddingModel,
    subsets: Sequence[TrainSubset],
    recipe: Recipe,
    settings: RunSettings,
    save: Save,
    evaluate: Evaluate | None = None,
) -> TrainOutcome:
    """Train `model` in place, by `recipe`, in what of it takes a gradient.

    `save` writes the model's own files to a folder that is there; it is called for every checkpoint and for the end, in
    the first process alone. `evaluate` gets the step and returns scores by name; it is called in every process, and
    finds the model in evaluation mode, as does the caller at the end.

    The result depends on the model, the subsets and the recipe alone, not on the number of processes, nor on whether
    the run was broken and resumed. Raises MmebError for an output folder with another run in it, for a loss that is
    no longer finite, for data that can't be read and for want of space; the last checkpoint then stays. Raises
    StoppedError after a SIGTERM, with a checkpoint of that step.
    """
    started = time.perf_counter()
    arguments = _arguments(model, recipe, settings)  # makes the process group where there are several
    identity = checkpoint.identity(model, subsets, recipe)
    with joined() as processes, listening() as stop:
        last = processes.on_first(lambda: checkpoint.open_run(settings.output, identity, resume=settings.resume))
        resumed = 0 if last is None else checkpoint.step_of(last)
        if settings.resume and processes.rank == 0:
            say(f"Going on from {last}." if last else f"{settings.output} has no checkpoint: the run begins anew.")
        monitor = Monitor(settings.output / checkpoint.LOG_FILE, recipe.steps, settings.progress)
        trainer = ContrastiveTrainer(
            model,
            subsets,
            recipe,
            settings,
            identity=identity,
            resumed=resumed,
            processes=processes,
            stop=stop,
            save=save,
            evaluate=evaluate,
            arguments=arguments,
            callbacks=[monitor] if processes.rank == 0 else [],
        )
        try:
            with plain_worker_errors(_ONWARD), _plain_memory_errors(), warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # torch is to rename it
                trainer.run(None if last is None else last / checkpoint.STATE)
                trainer.finish()
        finally:
            monitor.close()
            model.module.eval()
    log = [line for line in trainer.state.log_history if "loss" in line]
    skipped = int(sum(line["skipped_rows"] for line in log))
    return TrainOutcome(trainer.state.global_step, resumed, log, skipped, time.perf_counter() - started)


def _arguments(model: EmbeddingModel, recipe: Recipe, settings: RunSettings) -> TrainingArguments:
    """What the library's trainer is told. Raises MmebError for what it can't follow."""
    try:
        arguments = _unchecked_arguments(model, recipe, settings)
        for tracker in get_reporting_integration_callbacks(list(settings.report_to)):
            tracker()
    except (ImportError, OSError, ValueError, RuntimeError) as error:
        raise MmebError(f"The run can't be set up: {str(error).rstrip('.')}.") from error
    if settings.fsdp is not None and arguments.world_size == 1:
        raise MmebError("--fsdp shares a model out among processes: start them with torchrun or accelerate launch.")
    if (arguments.device.index or 0) != (model.device.index or 0):
        raise MmebError(f"A single process trains on {arguments.device}: name another GPU by CUDA_VISIBLE_DEVICES.")
    if arguments.n_gpu > 1:  # one process has one GPU: the library would deal every batch out to all that it sees
        arguments._n_gpu = 1
    return arguments


def _unchecked_arguments(model: EmbeddingModel, recipe: Recipe, settings: RunSettings) -> TrainingArguments:
    distributed: dict[str, Any] = {}
    if settings.fsdp is not None:
        distributed |= {"fsdp": True, "fsdp_config": str(settings.fsdp)}
    if settings.deepspeed is not None:
        distributed |= {"deepspeed": str(settings.deepspeed)}
    return TrainingArguments(
        output_dir=str(settings.output),
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=_SCHEDULES[recipe.schedule],
        warmup_steps=recipe.warmup_steps,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        seed=recipe.seed,
        bf16=model.device.type == "cuda" and recipe.dtype != "float32",
        use_cpu=model.device.type == "cpu",
        # When a line is logged and a checkpoint written is our own decision: a signal may ask for one.
        logging_strategy="no",
        save_strategy="no",
        logging_nan_inf_filter=False,
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,  # the sampler begins at the step that is resumed
        ddp_find_unused_parameters=True,  # text-only sub-batches leave the vision tower out
        ddp_broadcast_buffers=False,
        **distributed,
    )


@contextmanager
def _plain_memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise MmebError(
            "There is not enough memory on the device for a sub-batch: give a smaller --sub-batch-size or "
            "--sub-batch-tokens."
        ) from None
