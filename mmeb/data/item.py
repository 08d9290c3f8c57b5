"""What is embedded: a query or a candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from PIL import Image

from mmeb.data.images.image import ImageRef, as_image_ref
from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER, Modality, Prompt


class Role(StrEnum):
    QUERY = "query"
    CANDIDATE = "candidate"


@dataclass(frozen=True, init=False)
class Item:
    """A query or a candidate.

    `prompt` is the row's string, verbatim, with the placeholder `<|image_1|>` where the image stands;
    `instruction` and `text` are the prompt taken apart. Which of these the model gets is up to its adapter.
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
