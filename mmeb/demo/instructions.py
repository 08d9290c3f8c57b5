"""The instructions of the demo's training parts: MMEB-train's wording, and others for `diverse_instruction`."""

from dataclasses import replace

from mmeb.tasks import MetaTask, Task
from mmeb.tasks.train_subsets import instructions

_QUESTION = (
    "Answer the question about the image:",
    "Look at the image and find the answer to:",
    "Use the picture to reply to this question:",
)
_CATEGORY = (
    "Tell which category the image belongs to",
    "Name the class of this picture",
    "Sort the image into a class",
)
_DIVERSE: dict[str, tuple[str, ...]] = {
    "N24News": (
        "Find the news section of this photo with its caption:",
        "Tell the domain of the news image captioned:",
    ),
    "HatefulMemes": ("Decide whether this meme is hateful", "Is the message of this image hate speech or not"),
    "VOC2007": ("Name the main object of the picture", "Tell which object can be seen in the image"),
    "SUN397": ("Name the place in the picture", "Tell which scene can be seen in the image"),
    "VisDial": ("Find the image that this dialogue is about:", "Retrieve the picture discussed in the conversation:"),
    "CIRR": ("Find the image that results from this change:", "Retrieve a picture like this one, modified so:"),
    "VisualNews_t2i": ("Find the news photo for this caption.", "Show the picture that goes with this news."),
    "VisualNews_i2t": ("Retrieve the caption of this news photo.", "Describe what this news picture reports."),
    "MSCOCO_t2i": ("Find the picture that this sentence describes:", "Retrieve an image for the description:"),
    "MSCOCO_i2t": ("Retrieve a sentence that describes the picture.", "Describe this everyday scene."),
    "NIGHTS": ("Find the image that is most like this one.", "Retrieve a near copy of the picture."),
    "WebQA": ("Retrieve the picture with text that answers:", "Find an image and its text for the question:"),
    "MSCOCO": ("Crop out of the image the object called", "Find the part of the picture that shows the"),
}


def with_instruction(task: Task, instruction: str) -> Task:
    return replace(task, query_instruction=instruction)


def original(task: Task) -> Task:
    """The task with the instruction of MMEB-train's split `original`."""
    return with_instruction(task, instructions(task.train_subset or "")[0])


def diverse(task: Task) -> tuple[Task, ...]:
    """The task in several wordings, MMEB-train's among them."""
    default = _QUESTION if task.meta_task is MetaTask.VQA else _CATEGORY
    wordings = _DIVERSE.get(task.name, default)
    return (original(task), *(with_instruction(task, wording) for wording in wordings))
