"""The ten visual question answering tasks: an image with a question against answers."""

from functools import partial

from mmeb.tasks.task import MetaTask, Modality, Task

_task = partial(
    Task,
    meta_task=MetaTask.VQA,
    query=Modality.IMAGE_TEXT,
    target=Modality.TEXT,
    query_instruction="Represent the given image with the following question:",
)

TASKS = (
    _task("OK-VQA", train_subset="OK-VQA"),
    _task("A-OKVQA", train_subset="A-OKVQA"),
    _task("DocVQA", train_subset="DocVQA"),
    _task("InfographicsVQA", train_subset="InfographicsVQA"),
    _task("ChartQA", train_subset="ChartQA"),
    _task("Visual7W", train_subset="Visual7W"),
    _task("ScienceQA"),
    _task("VizWiz"),
    _task("GQA"),
    _task("TextVQA"),
)
