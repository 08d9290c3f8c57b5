"""The twelve retrieval tasks, in eight pairs of modalities."""

from functools import partial

from mmeb.tasks.task import MetaTask, Modality, Task

_task = partial(Task, meta_task=MetaTask.RETRIEVAL)

_TEXT, _IMAGE, _BOTH = Modality.TEXT, Modality.IMAGE, Modality.IMAGE_TEXT

_DIALOGUE = "Represent the given dialogue about an image, which is used for image retrieval:"
_CHANGES = "Given an image, find a similar everyday image with the described changes:"
_NEWS_IMAGE = "Retrieve an image of this news caption."
_NEWS_CAPTION = "Find a caption for the news in the given photo."
_EVERYDAY_IMAGE = "Find me an everyday image that matches the given caption:"
_EVERYDAY_CAPTION = "Find an image caption describing the given everyday image."
_SIMILAR = "Find a day-to-day image that looks similar to the provided image."
_WEBQA = "Find a Wikipedia image that answers this question:"
_FASHION = "Find an image to match the fashion image and style note:"
_DOCUMENT = "Find the document image that can answer the given query:"
_EVIDENCE = "Retrieve a Wikipedia image-description pair that provides evidence for the question of this image:"
_NEWS_PAIR = "Find a news image that matches the provided caption:"

_REPRESENT = "Represent the given image"
_REPRESENT_STOP = "Represent the given image."
_WIKIPEDIA_PAIR = "Represent the given Wikipedia image with related text information:"
_IMAGE_PAIR = "Represent the given image with related text information:"

# fmt: off
TASKS = (
    _task("VisDial", query=_TEXT, target=_IMAGE, query_instruction=_DIALOGUE, target_instruction=_REPRESENT, train_subset="VisDial"),
    _task("CIRR", query=_BOTH, target=_IMAGE, query_instruction=_CHANGES, target_instruction=_REPRESENT_STOP, train_subset="CIRR"),
    _task("VisualNews_t2i", query=_TEXT, target=_IMAGE, query_instruction=_NEWS_IMAGE, target_instruction=_REPRESENT_STOP, train_subset="VisualNews_t2i"),
    _task("VisualNews_i2t", query=_IMAGE, target=_TEXT, query_instruction=_NEWS_CAPTION, train_subset="VisualNews_i2t"),
    _task("MSCOCO_t2i", query=_TEXT, target=_IMAGE, query_instruction=_EVERYDAY_IMAGE, target_instruction=_REPRESENT_STOP, train_subset="MSCOCO_t2i"),
    _task("MSCOCO_i2t", query=_IMAGE, target=_TEXT, query_instruction=_EVERYDAY_CAPTION, train_subset="MSCOCO_i2t"),
    _task("NIGHTS", query=_IMAGE, target=_IMAGE, query_instruction=_SIMILAR, target_instruction=_REPRESENT_STOP, train_subset="NIGHTS"),
    _task("WebQA", query=_TEXT, target=_BOTH, query_instruction=_WEBQA, target_instruction=_WIKIPEDIA_PAIR, train_subset="WebQA", bare_placeholder=True),
    _task("FashionIQ", query=_BOTH, target=_IMAGE, query_instruction=_FASHION, target_instruction=_REPRESENT_STOP),
    _task("Wiki-SS-NQ", query=_TEXT, target=_IMAGE, query_instruction=_DOCUMENT, target_instruction=_REPRESENT),
    _task("OVEN", query=_BOTH, target=_BOTH, query_instruction=_EVIDENCE, target_instruction=_WIKIPEDIA_PAIR),
    _task("EDIS", query=_TEXT, target=_BOTH, query_instruction=_NEWS_PAIR, target_instruction=_IMAGE_PAIR, bare_placeholder=True),
)
# fmt: on
