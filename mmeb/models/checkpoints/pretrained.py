"""What the transformers library loads from a checkpoint: configuration, model, image processor, tokenizer.

Nothing of a checkpoint is executed: every call passes `trust_remote_code=False`, so that the library neither runs code
that lies beside the weights nor asks whether it may.
"""

import json
from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoImageProcessor,
    AutoTokenizer,
    BaseImageProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from mmeb.errors import MmebError
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.weights import DAMAGED, POSITION_IDS, refuse_misfits, unreadable

# Settings by which a configuration asks for code: that beside it, or a package or hub kernel that computes attention.
_CODE = ("auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal")
_POLICY = ("size", "crop_size", "resample", "image_mean", "image_std", "max_num_patches")


def read_config(checkpoint: Checkpoint, model_types: Iterable[str]) -> PreTrainedConfig:
    """The checkpoint's `config.json`, without the code that it may ask for.

    Raises MmebError where it is missing or of none of `model_types`.
    """
    model_type = check_type(checkpoint, model_types)  # before the library, which refuses types that it does not know
    fields = _without_code(json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8")))
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[model_type].from_dict(fields)
        return config
    except (AttributeError, LookupError, ValueError, TypeError) as error:
        raise MmebError(
            f"{checkpoint.source} has a config.json that can't be used ({first_line(error)}): download it again."
        ) from None


def check_type(checkpoint: Checkpoint, model_types: Iterable[str]) -> str:
    """The checkpoint's model type. Raises MmebError where its `config.json` is missing or of none of `model_types`."""
    if checkpoint.base is not None:
        raise MmebError(f"{checkpoint.source} is a LoRA, which this adapter can't load: name another --adapter.")
    try:
        model_type: str = json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MmebError(f"{checkpoint.source} has no config.json that tells what it is: download it again.") from None
    if model_type not in model_types:
        raise MmebError(
            f"{checkpoint.source} is a {model_type} model, not {' or '.join(model_types)}: name another --adapter."
        )
    return model_type


def load_pretrained(
    model_class: type[PreTrainedModel],
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    ignored: tuple[str, ...] = POSITION_IDS,
) -> PreTrainedModel:
    """A model class of transformers with the checkpoint's weights on `device`: "auto" is all, "meta" no weights.

    Raises MmebError for a weight that is missing, of another shape, or without a place (`ignored` are the endings of
    names that may be left over), and for quantised weights whose package is missing.
    """
    if device == torch.device("meta"):
        with torch.device(device):
            return model_class(config).eval()
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # the library's own report would alarm over what is ignored
    logging.disable_progress_bar()
    try:
        module, report = model_class.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=dtype,
            device_map="auto" if device == "auto" else {"": torch.device(device)},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that ours is the error that names them
            local_files_only=True,
            trust_remote_code=False,
        )
    except ImportError as error:  # the package that reads quantised weights
        raise MmebError(
            f"{checkpoint.source} is quantised, and can't be loaded here ({first_line(error)}): take the unquantised "
            "checkpoint."
        ) from None
    except DAMAGED as error:
        raise unreadable(checkpoint.path, error) from error
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
    extra = [key for key in report["unexpected_keys"] if not key.endswith(ignored)]
    wrong = {key: (tuple(found), tuple(expected)) for key, found, expected in report["mismatched_keys"]}
    refuse_misfits(checkpoint.source, report["missing_keys"], extra, wrong)
    return module.eval()


def load_image_processor(checkpoint: Checkpoint, processor_class: type[BaseImageProcessor] | None = None) -> Any:
    """The checkpoint's image processor, as its own class or as `processor_class`.

    It resizes with PIL, as published numbers were made: torchvision's resamples otherwise.
    """
    options = {"backend": "pil"} if processor_class is None else {}
    return _load(processor_class or AutoImageProcessor, checkpoint, "preprocessor_config.json", **options)


def load_tokenizer(checkpoint: Checkpoint, tokenizer_class: Any = AutoTokenizer) -> Any:
    """The checkpoint's tokenizer. Raises MmebError where its files are missing or can't be read."""
    tokenizer = _load(tokenizer_class, checkpoint, "tokenizer")
    if not tokenizer.encode("a", add_special_tokens=False):  # without files, some classes make one of no words
        raise MmebError(f"{checkpoint.source} has no tokenizer, or one without a vocabulary: download it again.")
    return tokenizer


def image_policy(processor: Any) -> dict[str, Any]:
    """What of an image processor affects a score, as JSON values."""
    settings = processor.to_dict()
    shown = {name: settings[name] for name in _POLICY if settings.get(name) is not None}
    policy: dict[str, Any] = json.loads(json.dumps({"backend": "pil", **shown}, default=dict))
    return policy


def first_line(error: Exception) -> str:
    """What a library's error says, shortened for a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def _without_code(value: Any) -> Any:
    """The configuration, parts of it included, without the settings of `_CODE`."""
    if isinstance(value, dict):
        return {name: _without_code(each) for name, each in value.items() if name not in _CODE}
    return value


def _load(loader: Any, checkpoint: Checkpoint, what: str, **options: Any) -> Any:
    try:
        return loader.from_pretrained(checkpoint.path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise MmebError(
            f"{checkpoint.source} has no {what} that can be read ({first_line(error)}): download it again."
        ) from None
