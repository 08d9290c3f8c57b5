"""What a training run is made of: all that moves its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mmeb.errors import MmebError


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter: `targets` are names of modules, or their last parts, as in peft."""

    targets: tuple[str, ...]
    rank: int = 8
    alpha: int = 64
    dropout: float = 0.1
    dora: bool = True

    def __post_init__(self) -> None:
        """Raises MmebError for settings that no adapter can have."""
        if not self.targets:
            raise MmebError("A LoRA needs targets: name modules with --lora-targets, q_proj,v_proj say.")
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise MmebError(f"The LoRA's {name} is to be 1 or more, not {getattr(self, name)}.")
        if not 0 <= self.dropout < 1:
            raise MmebError(f"The LoRA's dropout is to be from 0 to below 1, not {self.dropout}.")


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, without where it is written to and how it is watched (`RunSettings`).

    `model` is what it starts from: a registered name, a hub id or a folder; `options` are the adapter's. Without
    `lora` all weights are trained, with `freeze_tower` all but the image tower's.

    `batch_size` counts pairs over all processes. Batches are of one subset each, of homogeneous parts of `interleave`
    pairs, or `mixed`. `negatives` is how many hard negatives of a row are used. GradCache runs a batch in sub-batches
    of at most `sub_batch_tokens` tokens and `sub_batch_size` items (None: no bound); with neither, the whole batch
    keeps its graph.

    `learning_rate` is the highest; it rises over `warmup_steps` and falls by `schedule` to 0 at `steps`.
    """

    adapter: str
    model: str | None = None
    model_revision: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    lora: LoraSettings | None = None
    freeze_tower: bool = False
    gradient_checkpointing: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"

    subsets: tuple[str, ...] = ("all",)
    split: str = "original"
    limit: int | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    negatives: int | None = None

    batch_size: int = 1024
    batches: Literal["homogeneous", "interleaved", "mixed"] = "homogeneous"
    interleave: int = 64
    sub_batch_size: int | None = None
    sub_batch_tokens: int | None = None

    temperature: float = 0.02
    learn_temperature: bool = False
    symmetric: bool = False
    mask_equal_targets: bool = True

    steps: int = 2000
    learning_rate: float = 2e-5
    warmup_steps: int = 200
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42

    def __post_init__(self) -> None:
        """Raises MmebError for settings that can't be trained with."""
        if self.batch_size < 2:
            raise MmebError("The batch size is to be 2 or more: a pair's negatives are the other pairs of its batch.")
        for name in ("steps", "learning_rate", "temperature", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise MmebError(f"The {name.replace('_', ' ')} is to be above 0, not {getattr(self, name)}.")
        for name in ("limit", "interleave", "sub_batch_size", "sub_batch_tokens"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise MmebError(f"The {name.replace('_', ' ')} is to be 1 or more, not {value}.")
        for name in ("warmup_steps", "weight_decay", "negatives"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise MmebError(f"The {name.replace('_', ' ')} is to be 0 or more, not {value}.")
        if self.batches == "interleaved" and self.batch_size % self.interleave:
            raise MmebError(
                f"The batch size, {self.batch_size}, is to be a multiple of the parts that it is interleaved from, "
                f"{self.interleave}."
            )
