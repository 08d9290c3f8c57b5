"""The model inputs of an adapter for every pair of modalities: its prompt template, applied to MMEB's rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from PIL import Image

from mmeb.data.images.image import as_image_ref
from mmeb.data.item import Item, Role
from mmeb.models.base import EmbeddingModel
from mmeb.tasks import TASKS, Modality, Prompt, Task

INSTRUCTION, TEXT = "⟨instruction⟩", "⟨text⟩"


@dataclass(frozen=True)
class ModelInputs:
    """A pair of modalities, MMEB's tasks that have it, and the model input for their queries and candidates."""

    pair: str
    tasks: tuple[str, ...]
    query: str
    candidate: str


def model_inputs(adapter: type[EmbeddingModel], options: Mapping[str, str]) -> list[ModelInputs]:
    """One entry for every query → target pair of modalities in MMEB, in the order of its tasks.

    The image stands as `<|image_1|>`, a row's instruction and text as INSTRUCTION and TEXT. Raises MmebError for an
    option that the adapter lacks.
    """
    given = {name: value for name, value in options.items() if name != "base"}  # where a LoRA's base lies
    parsed = adapter.parse_options(given)
    image = Image.new("RGB", (28, 28))
    pairs: dict[tuple[Modality, Modality], list[Task]] = {}
    for task in TASKS:
        pairs.setdefault((task.query, task.target), []).append(task)
    found: list[ModelInputs] = []
    for (query, target), tasks in pairs.items():
        prompts = _prompts(tasks[0])
        sides = (
            Item.from_prompt(prompts[0], as_image_ref(image) if query.has_image else None, Role.QUERY),
            Item.from_prompt(prompts[1], as_image_ref(image) if target.has_image else None, Role.CANDIDATE),
        )
        texts = (adapter.render(item, parsed) for item in sides)
        found.append(ModelInputs(f"{query} → {target}", tuple(task.name for task in tasks), *texts))
    return found


def _prompts(task: Task) -> tuple[Prompt, Prompt]:
    """A query's and a candidate's prompt, as MMEB-eval writes them, with INSTRUCTION and TEXT in their places."""
    symbolic = replace(
        task, query_instruction=INSTRUCTION, target_instruction=INSTRUCTION if task.target_instruction else ""
    )
    query = symbolic.query_prompt("" if task.query is Modality.IMAGE else TEXT)
    return query, symbolic.target_prompt("" if task.target is Modality.IMAGE else TEXT)
