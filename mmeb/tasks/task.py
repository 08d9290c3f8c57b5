"""What one task of the benchmark is."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmeb.tasks.prompt import Prompt

PRIMARY_METRIC = "hit@1"


class MetaTask(StrEnum):
    """The four groups that the benchmark averages over."""

    CLASSIFICATION = "classification"
    VQA = "vqa"
    RETRIEVAL = "retrieval"
    GROUNDING = "grounding"


class Modality(StrEnum):
    """What an item consists of, beside its instruction."""

    TEXT = "text"
    IMAGE = "image"
    IMAGE_TEXT = "image+text"

    @property
    def has_image(self) -> bool:
        return self is not Modality.TEXT


@dataclass(frozen=True)
class Task:
    """One task: rank the candidates of each query; the first candidate of a row is the right one.

    `train_subset` is the task's name in MMEB-train, None for an out-of-distribution task. `bare_placeholder` marks the
    two tasks whose queries carry the image placeholder although they have no image. `target_tail` is what ends a
    candidate's prompt. `rows` is the data file of a custom task, None for the benchmark's.
    """

    name: str
    meta_task: MetaTask
    query: Modality
    target: Modality
    query_instruction: str
    target_instruction: str = ""
    train_subset: str | None = None
    primary_metric: str = PRIMARY_METRIC
    bare_placeholder: bool = False
    target_tail: str = "\n"
    rows: Path | None = None
    images: Path | None = None

    @property
    def in_distribution(self) -> bool:
        return self.train_subset is not None

    @property
    def is_custom(self) -> bool:
        return self.rows is not None

    def query_prompt(self, text: str) -> Prompt:
        """The prompt of a query with this text, as MMEB-eval writes it."""
        return Prompt.compose(
            self.query_instruction, text, placeholder=self.query.has_image or self.bare_placeholder, tail="\n"
        )

    def target_prompt(self, text: str) -> Prompt:
        """The prompt of a candidate with this text, as MMEB-eval writes it; a bare text where there is no image."""
        if not self.target.has_image and not self.target_instruction:
            return Prompt(text=text)
        return Prompt.compose(self.target_instruction, text, placeholder=self.target.has_image, tail=self.target_tail)
