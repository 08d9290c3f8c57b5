"""What is seen of a run while it goes: measures in `log.jsonl` and to trackers, a bar with the time left, warnings."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from mmeb.files import write_text
from mmeb.training.recipe import Recipe, to_mapping

_COUNTS = ("items", "tokens", "skipped_rows")  # summed over a window; all else is averaged over its steps

EASY_ACCURACY = 0.98
EASY_STEPS = 50  # so many at least, and a tenth of the run, before accuracy says that the negatives are too easy
_EASY = (
    "Warning: the positive has ranked first for {accuracy:.1%} of the queries over the last {steps} steps: the "
    "negatives are too easy to learn much from. Larger batches, batches of one subset or hard negatives make them "
    "harder."
)


def say(sentence: str) -> None:
    """A sentence to the person who watches, above the bar where there is one."""
    tqdm.write(sentence, file=sys.stderr)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, less one that a kill cut short."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunLog:
    """Writes the log and shows the bar; in the first process alone.

    A line of the log is a JSON object: `step` and the measures since the line before, or `step` and the scores of an
    evaluation, or `step` and a warning. Trackers get the measures and the scores.
    """

    def __init__(self, path: Path, recipe: Recipe, start: int, progress: bool, accelerator: Accelerator) -> None:
        """What was logged up to the step `start`, from which the run goes on, stays."""
        self._path = path
        self._steps = recipe.steps
        self._accelerator = accelerator
        self._is_main = bool(accelerator.is_main_process)
        self._easy_since: int | None = None
        self._is_warned = False
        hidden = None if progress and self._is_main else True  # None: where no person watches a terminal
        self._bar = tqdm(total=recipe.steps, initial=start, desc="train", unit="step", disable=hidden)
        if self._is_main:
            earlier = [json.dumps(line) + "\n" for line in read_log(path) if line["step"] <= start]
            write_text(path, "".join(earlier))
        accelerator.init_trackers("mmeb", {name: str(value) for name, value in to_mapping(recipe).items()})
        self._begin()

    def _begin(self) -> None:
        """Begin a window of steps."""
        self._sums: dict[str, float] = {}
        self._steps_since = 0
        self._started = time.perf_counter()

    def add(self, measures: Mapping[str, float]) -> None:
        """The measures of a step."""
        for name, value in measures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps_since += 1
        self._learning_rate = measures["learning_rate"]
        self._bar.update()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done in here takes no time of the steps'."""
        paused = time.perf_counter()
        yield
        self._started += time.perf_counter() - paused

    def write_measures(self, step: int) -> None:
        """A line with the means over the window's steps, rates per second and the skipped rows; a new one begins.

        Of the learning rate it is the last step's.
        """
        seconds = time.perf_counter() - self._started
        measures = {name: self._sums[name] / self._steps_since for name in self._sums if name not in _COUNTS}
        measures["learning_rate"] = self._learning_rate
        for name in ("items", "tokens"):
            measures[f"{name}_per_second"] = round(self._sums[name] / seconds, 1)
        measures["skipped_rows"] = int(self._sums["skipped_rows"])
        self._write(step, measures)
        self._bar.set_postfix(loss=f"{measures['loss']:.3f}", accuracy=f"{measures['accuracy']:.3f}")
        self._warn(step, measures["accuracy"])
        self._begin()

    def write_scores(self, step: int, scores: Mapping[str, float]) -> None:
        self._write(step, {f"eval/{name}": value for name, value in scores.items()})

    def close(self) -> None:
        self._bar.close()
        for tracker in self._accelerator.trackers:
            tracker.finish()

    def _warn(self, step: int, accuracy: float) -> None:
        """Say it once where the positives have long been first almost always."""
        if accuracy < EASY_ACCURACY:
            self._easy_since = None
            return
        if self._easy_since is None:
            self._easy_since = step
        steps = step - self._easy_since
        if self._is_main and not self._is_warned and steps >= max(EASY_STEPS, self._steps // 10):
            self._is_warned = True
            sentence = _EASY.format(accuracy=accuracy, steps=steps)
            say(sentence)
            self._append({"step": step, "warning": sentence})

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        if self._is_main:
            self._append({"step": step, **values})
        self._accelerator.log(dict(values), step=step)

    def _append(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
