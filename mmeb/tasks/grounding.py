"""The four visual grounding tasks: an image with an expression against crops of images."""

from functools import partial

from mmeb.tasks.task import MetaTask, Modality, Task

_task = partial(
    Task,
    meta_task=MetaTask.GROUNDING,
    query=Modality.IMAGE_TEXT,
    target=Modality.IMAGE,
    target_instruction="Represent the given cropped image of the object",
    target_tail="",
)

_LABEL = "Crop the image to to isolate the object labeled as"  # "to to" is the benchmark's wording
_EXPRESSION = "Select the portion of the image that follows the language expressions."
_EXPRESSION_PAIR = "Select the portion of the image that follows the language expressions:"
_ANSWER = "Select the portion of the image that answers the question"

TASKS = (
    _task("MSCOCO", query_instruction=_LABEL, train_subset="MSCOCO"),
    _task("RefCOCO", query_instruction=_EXPRESSION),
    _task(
        "RefCOCO-Matching",
        target=Modality.IMAGE_TEXT,
        query_instruction=_EXPRESSION_PAIR,
        target_instruction=_EXPRESSION_PAIR,
        target_tail="\n",
    ),
    _task("Visual7W-Pointing", query_instruction=_ANSWER),
)
