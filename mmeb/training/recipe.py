"""What a training run is made of: all that moves its result."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class LoraSettings:
    """A low-rank adapter: `targets` are names of modules, or their last parts, as in peft."""

    targets: tuple[str, ...]
    rank: int = 8
    alpha: int = 64
    dropout: float = 0.1
    dora: bool = True


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
