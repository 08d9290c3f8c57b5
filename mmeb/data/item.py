"""What is to be embedded, and the data of one task."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmeb.data.images import ImageRef, as_image_ref
from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER, Modality, Prompt


class Role(StrEnum):
    QUERY = "query"
    CANDIDATE = "candidate"


@dataclass(frozen=True, init=False)
class Item:
    """A query or a candidate.

    `prompt` is the row's own string, verbatim, with the placeholder `<|image_1|>` where the image stands;
    `instruction` and `text` are the prompt taken apart. Which of these a model is fed is its adapter's business.
    Given a prompt alone, an Item has no instruction, and its text is the prompt without placeholder. An image without
    a placeholder gets one in front, with a newline. Two items are equal where all five fields are.

    Raises MmebError for a prompt with two placeholders.
    """

    prompt: str
    instruction: str
    text: str
    image: ImageRef | None
    role: Role

    def __init__(
        self,
        prompt: str = "",
        instruction: str = "",
        text: str | None = None,
        image: ImageRef | Image.Image | Path | str | None = None,
        role: Role | str = Role.QUERY,
    ) -> None:
        if prompt.count(PLACEHOLDER) > 1:
            raise MmebError(f"A prompt may hold one {PLACEHOLDER}, since an item has one image: {prompt[:200]!r}")
        if text is None:
            text = prompt.replace(PLACEHOLDER, "", 1).strip()
        if image is not None and PLACEHOLDER not in prompt:
            prompt = f"{PLACEHOLDER}\n{prompt}"
        for name, value in (
            ("prompt", prompt),
            ("instruction", instruction),
            ("text", text),
            ("image", as_image_ref(image)),
            ("role", Role(role)),
        ):
            object.__setattr__(self, name, value)

    @classmethod
    def from_prompt(cls, prompt: Prompt, image: ImageRef | None, role: Role) -> "Item":
        return cls(str(prompt), prompt.instruction, prompt.text, image, role)

    @property
    def modality(self) -> Modality:
        """What the item consists of, its instruction not counted."""
        if self.image is None:
            return Modality.TEXT
        return Modality.IMAGE_TEXT if self.text else Modality.IMAGE

    @property
    def has_bare_placeholder(self) -> bool:
        """Whether the prompt holds a placeholder although there is no image (queries of WebQA and EDIS)."""
        return self.image is None and PLACEHOLDER in self.prompt


def distinct_images(items: Sequence[Item]) -> list[ImageRef]:
    """The images of these items, each once, in the order in which they first appear."""
    return list(dict.fromkeys(item.image for item in items if item.image is not None))


@dataclass(frozen=True)
class DataSource:
    """Where a task's rows came from: lands in every result's provenance."""

    kind: str  # "hub", "instruct", "folder", "demo", "file"
    repository: str
    revision: str | None = None


@dataclass(frozen=True)
class EvalDataset:
    """The unique items of one task and who is ranked against whom.

    `query_ids` is int32 (n_rows,), indices into `queries`. `candidate_ids` is int32 (n_rows, width), indices into
    `candidates`, padded with -1 behind a row's last candidate; column 0 is the ground truth. `fingerprint` is a hash
    over the content of the rows and the bytes of the images' names, so that equal data has an equal fingerprint
    wherever it lies. `notes` are plain sentences on oddities of the data, for the result's provenance.
    """

    task: str
    queries: list[Item]
    candidates: list[Item]
    query_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    source: DataSource
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.query_ids)

    def head(self, n_rows: int) -> "EvalDataset":
        """The first `n_rows` rows, with the items that they use and a note that says so (`--limit`)."""
        if n_rows >= self.n_rows:
            return self
        queries, query_ids = _used(self.queries, self.query_ids[:n_rows])
        candidates, candidate_ids = _used(self.candidates, self.candidate_ids[:n_rows])
        return replace(
            self,
            queries=queries,
            candidates=candidates,
            query_ids=query_ids,
            candidate_ids=candidate_ids,
            fingerprint=f"{self.fingerprint}:{n_rows}",
            notes=[*self.notes, f"only the first {n_rows} of {self.n_rows} rows were used"],
        )


def _used(items: list[Item], ids: NDArray[np.int32]) -> tuple[list[Item], NDArray[np.int32]]:
    """The items that `ids` name, and `ids` renumbered to them; -1 stays."""
    kept = np.unique(ids[ids >= 0])
    renumbered = np.searchsorted(kept, ids).astype(np.int32)
    return [items[position] for position in kept], np.where(ids < 0, np.int32(-1), renumbered)
