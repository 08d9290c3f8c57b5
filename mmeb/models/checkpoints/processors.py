"""A checkpoint's image processor and tokenizer, as the transformers library knows them."""

import json
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer

from mmeb.errors import MmebError
from mmeb.models.checkpoints.checkpoint import Checkpoint

_POLICY = ("size", "crop_size", "resample", "image_mean", "image_std", "max_num_patches")


def load_image_processor(checkpoint: Checkpoint) -> Any:
    """The processor that resizes with PIL, as published numbers were made: torchvision's resamples otherwise."""
    return _load(AutoImageProcessor, checkpoint, "preprocessor_config.json", backend="pil")


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    return _load(AutoTokenizer, checkpoint, "tokenizer")


def image_policy(processor: Any) -> dict[str, Any]:
    """What of an image processor moves a score, as JSON values."""
    settings = processor.to_dict()
    shown = {name: settings[name] for name in _POLICY if settings.get(name) is not None}
    policy: dict[str, Any] = json.loads(json.dumps({"backend": "pil", **shown}, default=dict))
    return policy


def _load(auto_class: Any, checkpoint: Checkpoint, what: str, **kwargs: Any) -> Any:
    try:
        return auto_class.from_pretrained(checkpoint.path, local_files_only=True, **kwargs)
    except Exception as error:  # the tokenizers library raises nothing narrower
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise MmebError(f"{checkpoint.source} has no {what} that can be read ({reason}): download it again.") from None
