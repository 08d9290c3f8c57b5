"""A training run's folder: complete checkpoints, the last few of them, and which run they belong to.

OUTPUT/training.json         which run it is (`identity`), and whether it is finished
OUTPUT/log.jsonl             what was measured
OUTPUT/checkpoint-200/       the model's files, as they are scored; training.json: the run and the step
OUTPUT/checkpoint-200/state/ what the run goes on from: exact weights, optimizer, schedule
OUTPUT/...                   the model's files, at the end
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmeb.data.train.dataset import TrainSubset
from mmeb.errors import MmebError
from mmeb.files import read_json, replacing_folder, to_text, write_text
from mmeb.models.base import EmbeddingModel
from mmeb.results.store import differing
from mmeb.training.recipe import Recipe, to_mapping

RUN_FILE, LOG_FILE, STATE = "training.json", "log.jsonl", "state"
_NAME = re.compile(r"checkpoint-(\d+)")
_FORMAT = 2  # of what a run goes on from; 1 had another order of batches
_MODEL_FILES = ("config.json", "adapter_config.json", "*.safetensors", "*.bin")


def checkpoints(output: Path) -> list[Path]:
    """The complete checkpoints of a run, by step."""
    named = [path for path in output.glob("checkpoint-*") if _NAME.fullmatch(path.name)]
    complete = [path for path in named if (path / RUN_FILE).is_file() and (path / STATE).is_dir()]
    return sorted(complete, key=step_of)


def step_of(path: Path) -> int:
    """The step after which a checkpoint was written."""
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"{path} is no checkpoint")
    return int(match[1])


def refuse_overwriting(output: Path, *, resume: bool) -> None:
    """Raise MmebError where the folder holds what a run would overwrite; it is only looked at.

    Without `resume` that is another run, or a model of another origin; with it, a finished run.
    """
    if output.exists() and not output.is_dir():
        raise MmebError(f"The output {output} is a file, not a folder.")
    earlier = read_json(output / RUN_FILE) if (output / RUN_FILE).exists() else {}
    if earlier.get("finished"):
        raise MmebError(f"The training run in {output} is finished: choose another --output.")
    if resume:
        return
    if found := checkpoints(output):
        raise MmebError(
            f"{output} holds a training run, up to {found[-1].name}: go on with it by --resume, "
            "or choose another --output."
        )
    if not earlier and any(path for pattern in _MODEL_FILES for path in output.glob(pattern)):
        raise MmebError(f"{output} holds a model that is not of a training run: choose another --output.")


def identity(model: EmbeddingModel, subsets: Sequence[TrainSubset], recipe: Recipe) -> dict[str, Any]:
    """All that affects a run's result, as JSON."""
    data = {subset.name: subset.fingerprint for subset in subsets}
    content = {"format": _FORMAT, "recipe": to_mapping(recipe), "model": model.provenance, "data": data}
    plain: dict[str, Any] = json.loads(json.dumps(content))  # tuples become lists, as they come back from a file
    return plain


def open_run(output: Path, identity: Mapping[str, Any], *, resume: bool) -> Path | None:
    """Start a run in a folder, or find the checkpoint to go on from; None where it starts at the first step.

    `identity` is all that affects the result. Raises MmebError where something would be overwritten
    (`refuse_overwriting`), where the run to go on with is another one, and where the folder can't be written to.
    """
    refuse_overwriting(output, resume=resume)
    last = checkpoints(output)[-1] if resume and checkpoints(output) else None
    record = (last or output) / RUN_FILE
    if resume and record.exists():
        _refuse_other(record, identity)
    for temporary in (*output.glob(".*.part"), output / ".model"):  # of a process that was killed
        shutil.rmtree(temporary, ignore_errors=True)
    write_text(output / RUN_FILE, to_text({"identity": identity, "finished": False}))
    return last


def _refuse_other(record: Path, identity: Mapping[str, Any]) -> None:
    earlier = read_json(record).get("identity", {})
    if earlier.get("format") != identity["format"]:
        raise MmebError(
            f"{record.parent} was written by another version of mmeb, whose batches come in another order: finish the "
            "run with that version, or choose another --output."
        )
    if differences := differing(earlier, identity):
        shown = "; ".join(f"{name}: {old!r} there, {new!r} now" for name, old, new in differences[:4])
        raise MmebError(
            f"{record.parent} belongs to another training run ({shown}): "
            "repeat the command that it was started with, or choose another --output."
        )


@contextmanager
def writing(output: Path, step: int, identity: Mapping[str, Any]) -> Iterator[Path]:
    """Give a folder to fill that becomes `checkpoint-<step>` once it is complete. Raises MmebError without space."""
    path = output / f"checkpoint-{step}"
    discard(path)  # of the same run: one that lacks a part, or that a resumed run comes to again
    with replacing_folder(path) as temporary:
        (temporary / STATE).mkdir()
        yield temporary
        write_text(temporary / RUN_FILE, to_text({"identity": identity, "step": step}))


def rotate(output: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints."""
    for path in checkpoints(output)[:-keep]:
        discard(path)


def discard(path: Path) -> None:
    """Remove a checkpoint, such that a part of it is never taken for a complete one."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.part")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def finish(output: Path, identity: Mapping[str, Any], save: Callable[[Path], None]) -> None:
    """Put the model's files into the run's folder, each complete, and mark the run as finished."""
    ready = output / ".model"
    shutil.rmtree(ready, ignore_errors=True)
    try:
        with replacing_folder(ready) as temporary:
            save(temporary)
        for path in sorted(ready.rglob("*")):
            target = output / path.relative_to(ready)
            if path.is_dir():
                target.mkdir(exist_ok=True)
            else:
                os.replace(path, target)
    finally:
        shutil.rmtree(ready, ignore_errors=True)
    write_text(output / RUN_FILE, to_text({"identity": identity, "finished": True}))
