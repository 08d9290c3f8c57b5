"""What a training run is made of."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mmeb.data.train import SPLITS
from mmeb.errors import MmebError


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a run; all that moves its result, apart from the data and the model it starts from."""

    output: Path
    steps: int = 3000
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    temperature: float = 0.07
    weight_decay: float = 0.01
    split: str = "original"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises MmebError for a setting that can't be trained with."""
        if self.batch_size < 2:
            raise MmebError("The batch size is to be 2 or more: a pair's negatives are the other pairs of its batch.")
        for name in ("steps", "learning_rate", "temperature"):
            if getattr(self, name) <= 0:
                raise MmebError(f"The {name.replace('_', ' ')} is to be above 0, not {getattr(self, name)}.")
        if self.split not in SPLITS:
            raise MmebError(f"There is no split {self.split!r}: MMEB-train has {' and '.join(SPLITS)}.")

    def to_json(self) -> dict[str, str | int | float]:
        """The settings without the output folder, for the recipe beside the weights."""
        fields = dataclasses.asdict(self)
        del fields["output"]
        return fields
