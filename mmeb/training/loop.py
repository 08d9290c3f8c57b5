"""The training loop, on accelerate."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedType, LoggerType
from torch import Tensor

from mmeb.data.train.dataset import TrainSubset
from mmeb.errors import MmebError
from mmeb.files import read_json
from mmeb.models.base import EmbeddingModel
from mmeb.runtime.processes import Processes, joined
from mmeb.runtime.signals import StoppedError, listening
from mmeb.runtime.workers import WorkerDiedError, default_workers
from mmeb.training import checkpoint
from mmeb.training.batch import StepBatch
from mmeb.training.loader import StepLoader
from mmeb.training.log import RunLog, read_log, say
from mmeb.training.recipe import Recipe, RunSettings
from mmeb.training.sampler import BatchSampler, batches_of
from mmeb.training.state import TrainingState
from mmeb.training.step import Embedder, StepResult, contrastive_step


class Save(Protocol):
    """Writes a model's own files to a folder; `state` is that of its module where it can't be asked itself."""

    def __call__(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None: ...


Evaluate = Callable[[int], Mapping[str, float]]


@dataclass(frozen=True)
class TrainOutcome:
    """What a run came to.

    `resumed` is the step that it went on from, 0 where it began at the beginning. `log` has the measures of the run
    from its first step, as in `log.jsonl`; `skipped_rows` counts the rows left out for an image that can't be read.
    `seconds` are those of this process.
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
    the run was stopped and resumed. Raises MmebError for an output folder with another run in it, for a loss that is
    no longer finite, for data that can't be read and for lack of space; the last checkpoint then stays. Raises
    StoppedError after a SIGTERM, with a checkpoint of that step.
    """
    started = time.perf_counter()
    accelerator = make_accelerator(model, recipe, settings)  # makes the process group where there are several
    identity = checkpoint.identity(model, subsets, recipe)
    batches = batches_of(subsets, recipe)
    output = settings.output
    with joined() as processes, listening() as request, _plain_errors():
        last = processes.on_first(lambda: checkpoint.open_run(output, identity, resume=settings.resume))
        start = 0 if last is None else checkpoint.step_of(last)
        if settings.resume and accelerator.is_main_process:
            say(f"Going on from {last}." if last else f"{output} has no checkpoint: the run begins anew.")
        embedder = Embedder(model, recipe.temperature if recipe.learn_temperature else None).train()
        state = TrainingState(embedder, recipe, accelerator, start, last and last / checkpoint.STATE)
        place = {"rank": processes.rank, "world": processes.size}
        workers = _workers(settings, accelerator, processes)
        loader = StepLoader(model, subsets, recipe, batches, start=start, workers=workers, **place)
        log = RunLog(output / checkpoint.LOG_FILE, recipe, start, settings.progress, accelerator)
        unreadable = UnreadableImages(settings.skip_bad_rows, accelerator)

        def check_finite(what: str, value: float) -> float:
            if not math.isfinite(value):
                raise _not_finite(what, state.step, batches, subsets, output)
            return value

        try:
            for batch in loader:
                result = contrastive_step(state.model, batch, recipe, accelerator)
                unreadable.report(result, batch)
                check_finite("loss", result.loss)
                norm = accelerator.clip_grad_norm_(state.model.parameters(), recipe.max_grad_norm)
                measures = {**_measures(result), "grad_norm": check_finite("gradient", float(norm))}
                measures["learning_rate"] = state.learning_rate
                state.update()

                log.add(measures)
                is_last = state.step == recipe.steps
                stops = _any_process(request.made, accelerator)
                saves = stops or _is_due(state.step, settings.save_every, is_last)
                # A resumed run begins a new window: so does an uninterrupted one, and both log the same.
                if saves or _is_due(state.step, settings.log_every, is_last):
                    log.write_measures(state.step)
                if saves:
                    with log.paused():
                        _save_checkpoint(state, save, settings, identity, processes)
                if evaluate is not None and _is_due(state.step, settings.eval_every):
                    with log.paused(), state.evaluating():
                        log.write_scores(state.step, evaluate(state.step))
                if stops and not is_last:
                    raise StoppedError(
                        f"Stopped at step {state.step} of {recipe.steps}, as asked: the same command with --resume "
                        f"goes on from {output / f'checkpoint-{state.step}'}."
                    )
            _write_model(state, save, output, identity, processes)
        finally:
            loader.close()
            log.close()
            model.module.eval()
        lines = processes.on_first(lambda: read_log(output / checkpoint.LOG_FILE))
    measured = [line for line in lines if "loss" in line]
    skipped = int(sum(line["skipped_rows"] for line in measured))
    return TrainOutcome(state.step, start, measured, skipped, time.perf_counter() - started)


def make_accelerator(model: EmbeddingModel, recipe: Recipe, settings: RunSettings) -> Accelerator:
    """The devices, the precision and the trackers of a run. Raises MmebError for what can't be set up."""
    known, available = map(str, LoggerType), {str(tracker) for tracker in get_available_trackers()}
    if missing := {*known} & {*settings.report_to} - available:
        raise MmebError(f"The run can't be reported to {min(missing)}: install its package.")
    # Text-only micro-batches leave the vision tower out.
    ddp = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    on_gpu = model.device.type == "cuda"
    try:
        accelerator = Accelerator(
            cpu=not on_gpu,
            mixed_precision="bf16" if on_gpu and recipe.dtype != "float32" else "no",
            log_with=list(settings.report_to) or None,
            project_dir=settings.output,
            kwargs_handlers=[ddp],
            fsdp_plugin=_fsdp_plugin(settings.fsdp) if settings.fsdp is not None else None,
            deepspeed_plugin=_deepspeed_plugin(settings.deepspeed, recipe) if settings.deepspeed is not None else None,
        )
    except (ImportError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise MmebError(f"The run can't be set up: {str(error).rstrip('.')}.") from error
    if settings.fsdp is not None and accelerator.num_processes == 1:
        raise MmebError("--fsdp shards a model over processes: start them with torchrun or accelerate launch.")
    if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise MmebError("Training takes FSDP in its version 2: set fsdp_version (version, in --fsdp's file) to 2.")
    if (accelerator.device.index or 0) != (model.device.index or 0):
        raise MmebError(f"A single process trains on {accelerator.device}: name another GPU by CUDA_VISIBLE_DEVICES.")
    return accelerator


def _fsdp_plugin(path: Path) -> FullyShardedDataParallelPlugin:
    """From a JSON file with the plugin's arguments, or with the names that transformers' `fsdp_config` has for them."""
    content = {name.removeprefix("fsdp_"): value for name, value in read_json(path).items()}
    names = {"version": "fsdp_version", "transformer_layer_cls_to_wrap": "transformer_cls_names_to_wrap"}
    defaults = {"fsdp_version": 2, "auto_wrap_policy": "transformer_based_wrap", "cpu_ram_efficient_loading": False}
    return FullyShardedDataParallelPlugin(**defaults | {names.get(name, name): each for name, each in content.items()})


def _deepspeed_plugin(path: Path, recipe: Recipe) -> DeepSpeedPlugin:
    plugin = DeepSpeedPlugin(hf_ds_config=read_json(path), gradient_clipping=recipe.max_grad_norm)
    plugin.deepspeed_config["train_micro_batch_size_per_gpu"] = recipe.batch_size  # required; it has no effect
    return plugin


def _workers(settings: RunSettings, accelerator: Accelerator, processes: Processes) -> int:
    if settings.workers is not None:
        return settings.workers
    return default_workers(accelerator.device.type, processes.local_size)


def _is_due(step: int, every: int | None, is_last: bool = False) -> bool:
    return every is not None and (is_last or step % every == 0)


def _any_process(flag: bool, accelerator: Accelerator) -> bool:
    """Whether it holds in any process; the same in all."""
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def _measures(result: StepResult) -> dict[str, float]:
    return {
        "loss": result.loss,
        **asdict(result.measures),
        "temperature": result.temperature,
        "items": result.items,
        "tokens": result.tokens,
        "skipped_rows": len(result.skipped_rows),
    }


class UnreadableImages:
    """What is said of images that can't be read, once each; or raised, unless their rows may be skipped."""

    def __init__(self, skip: bool, accelerator: Accelerator) -> None:
        self._skip = skip
        self._accelerator = accelerator
        self._said: set[str] = set()

    def report(self, result: StepResult, batch: StepBatch) -> None:
        """Raises MmebError, the same in every process."""
        if not result.unreadable:
            return
        errors = batch.all_errors()
        if not self._skip:
            raise MmebError(f"{errors[0].rstrip('.')}: fix it, or leave such rows out with --skip-bad-rows.")
        for error in errors:
            if self._accelerator.is_main_process and error not in self._said:
                say(f"Skipped: {error}")
            self._said.add(error)


def _not_finite(what: str, step: int, batches: BatchSampler, subsets: Sequence[TrainSubset], output: Path) -> MmebError:
    rows = [subsets[subset].origin(row) for subset, row in batches[step]]
    found = checkpoint.checkpoints(output)
    kept = f"{found[-1].name} is the last good one" if found else "there is no checkpoint yet"
    return MmebError(
        f"The {what} of step {step + 1} is no longer finite, in a batch of {len(rows)} rows that begins with "
        f"{'; '.join(rows[:3])}: look at these rows, or train with a lower learning rate or a higher temperature; "
        f"{kept}."
    )


def _save_checkpoint(
    state: TrainingState, save: Save, settings: RunSettings, identity: Mapping[str, Any], processes: Processes
) -> None:
    weights, optimizer = state.full_weights(), state.optimizer_state(settings.output)

    def write() -> None:
        with checkpoint.writing(settings.output, state.step, identity) as folder:
            save(folder, state.module_weights(weights))
            state.write(folder / checkpoint.STATE, weights, optimizer)
        checkpoint.rotate(settings.output, settings.keep)

    processes.on_first(write)


def _write_model(
    state: TrainingState, save: Save, output: Path, identity: Mapping[str, Any], processes: Processes
) -> None:
    """Write the model's files to the output folder."""
    weights = state.full_weights()
    processes.on_first(
        lambda: checkpoint.finish(output, identity, lambda folder: save(folder, state.module_weights(weights)))
    )


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # torch is to rename it
            yield
    except torch.OutOfMemoryError:
        raise MmebError(
            "There is not enough memory on the device for a micro-batch: lower micro_batch_size or micro_batch_tokens."
        ) from None
    except WorkerDiedError as error:
        raise WorkerDiedError(
            f"{error} The last checkpoint is kept, the same command with --resume goes on from there."
        ) from None
