"""What is seen of a run while it goes: measures in `log.jsonl` and to trackers, a bar with the time left, warnings."""

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mmeb.files import write_text

_COUNTS = ("items", "tokens", "skipped_rows")  # summed over a window; all else is averaged over its steps

EASY_ACCURACY = 0.98
EASY_STEPS = 50  # so many at least, and a tenth of the run, before accuracy says that the negatives are too easy
_EASY = (
    "Warning: the positive has ranked first for {accuracy:.1%} of the queries over the last {steps} steps: the "
    "negatives are too easy to learn much from. Larger batches, batches of one subset or hard negatives make them "
    "harder."
)


class Window:
    """The measures of the steps since the last line of the log."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._steps: dict[str, int] = {}
        self.start()

    def start(self) -> None:
        """Count the seconds from now on: what was done since the last step is no part of one."""
        self._started = time.perf_counter()

    def add(self, measures: Mapping[str, float]) -> None:
        for name, value in measures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._steps[name] = self._steps.get(name, 0) + 1

    def close(self) -> dict[str, float]:
        """The means over the steps, the rates per second and the sum of skipped rows; a new window begins."""
        seconds = time.perf_counter() - self._started
        measures = {name: self._sums[name] / self._steps[name] for name in self._sums if name not in _COUNTS}
        for name in ("items", "tokens"):
            measures[f"{name}_per_second"] = round(self._sums.get(name, 0.0) / seconds, 1)
        measures["skipped_rows"] = int(self._sums.get("skipped_rows", 0))
        self.__init__()  # type: ignore[misc]
        return measures


def say(sentence: str) -> None:
    """A sentence to the person who watches, above the bar where there is one."""
    tqdm.write(sentence, file=sys.stderr)


class Monitor(TrainerCallback):  # type: ignore[misc]
    """Writes the log and shows the bar; one per run, in the first process alone.

    A line of the log is a JSON object: `step` and the measures, or `step` and the scores of an evaluation, or `step`
    and a warning.
    """

    def __init__(self, log: Path, steps: int, progress: bool) -> None:
        self._log = log
        self._steps = steps
        self._progress = progress
        self._bar: Any = None
        self._easy_since: int | None = None
        self._warned = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        self._cut(state.global_step)
        hidden = None if self._progress else True  # None: where no person watches a terminal
        self._bar = tqdm(total=self._steps, initial=state.global_step, desc="train", unit="step", disable=hidden)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        self._bar.update()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **others: Any,
    ) -> None:
        measures = {name: value for name, value in (logs or {}).items() if name != "epoch"}
        if "train_runtime" in measures:  # the library's own summary at the end
            return
        self._write({"step": state.global_step, **measures})
        if "loss" in measures:
            self._bar.set_postfix(loss=f"{measures['loss']:.3f}", accuracy=f"{measures['accuracy']:.3f}")
            self._warn(state.global_step, measures["accuracy"])

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _warn(self, step: int, accuracy: float) -> None:
        """Say it once where the positives have long been first almost always."""
        if accuracy < EASY_ACCURACY:
            self._easy_since = None
            return
        if self._easy_since is None:
            self._easy_since = step
        steps = step - self._easy_since
        if not self._warned and steps >= max(EASY_STEPS, self._steps // 10):
            self._warned = True
            sentence = _EASY.format(accuracy=accuracy, steps=steps)
            say(sentence)
            self._write({"step": step, "warning": sentence})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut(self, step: int) -> None:
        """Keep what was logged up to the step from which the run goes on, less a line that a kill cut short."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        write_text(self._log, "".join(kept))
