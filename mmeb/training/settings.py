"""How a training run is written and watched: all that does not move its result."""

from dataclasses import dataclass
from pathlib import Path

from mmeb.errors import MmebError


@dataclass(frozen=True)
class RunSettings:
    """Where a run is written to, how often it is saved, logged and scored, and what it runs on.

    Every `save_every` steps there is a checkpoint, of which the last `keep` stay; None keeps only what the end writes.
    Every `eval_every` steps (None: never) the tasks `eval_tasks` of `eval_data` are scored, `eval_limit` queries each.
    `report_to` are the library trainer's own names ("tensorboard", "wandb"). `workers` prepare batches in the
    background (None: by the device). `fsdp` and `deepspeed` are configuration files of the library's.
    """

    output: Path
    save_every: int | None = 200
    keep: int = 2
    log_every: int = 10
    eval_every: int | None = None
    eval_tasks: str = "ood"
    eval_data: str = "demo"
    eval_limit: int | None = None
    report_to: tuple[str, ...] = ()
    workers: int | None = None
    skip_bad_rows: bool = False
    resume: bool = False
    progress: bool = True
    fsdp: Path | None = None
    deepspeed: Path | None = None

    def __post_init__(self) -> None:
        """Raises MmebError for a number that can't be worked with."""
        for name in ("save_every", "keep", "log_every", "eval_every", "eval_limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise MmebError(f"--{name.replace('_', '-')} is to be 1 or more, not {value}.")
        if self.workers is not None and self.workers < 0:
            raise MmebError(f"--workers is to be 0 or more, not {self.workers}.")
