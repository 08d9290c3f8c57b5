"""The ten classification tasks: an image (N24News: with its caption) against class names."""

from functools import partial

from mmeb.tasks.task import MetaTask, Modality, Task

_task = partial(Task, meta_task=MetaTask.CLASSIFICATION, query=Modality.IMAGE, target=Modality.TEXT)

_CLASSIFY = "Represent the given image for classification"
_CAPTIONED = "Represent the given news image with the following caption for domain classification:"
_HATEFUL = (
    "Represent the given image for binary classification to determine whether it constitutes hateful speech or not"
)
_OBJECT = "Identify the object shown in the image"
_SCENE = "Identify the scene shown in the image"
_COUNTRY = "Identify the country depicted in the image"

TASKS = (
    _task("ImageNet-1K", query_instruction=_CLASSIFY, train_subset="ImageNet_1K"),
    _task("N24News", query=Modality.IMAGE_TEXT, query_instruction=_CAPTIONED, train_subset="N24News"),
    _task("HatefulMemes", query_instruction=_HATEFUL, train_subset="HatefulMemes"),
    _task("VOC2007", query_instruction=_OBJECT, train_subset="VOC2007"),
    _task("SUN397", query_instruction=_SCENE, train_subset="SUN397"),
    _task("Place365", query_instruction=_SCENE),
    _task("ImageNet-A", query_instruction=_CLASSIFY),
    _task("ImageNet-R", query_instruction=_CLASSIFY),
    _task("ObjectNet", query_instruction=_OBJECT),
    _task("Country211", query_instruction=_COUNTRY),
)
