"""What the backbones that the transformers library has in common share: strict loading and tokenising."""

from abc import abstractmethod
from typing import ClassVar

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from mmeb.errors import MmebError
from mmeb.models.backbones.base import Backbone, EncodedRow
from mmeb.models.checkpoint import Checkpoint
from mmeb.tasks import PLACEHOLDER

LM_HEADS = ("lm_head.weight", "language_model.lm_head.weight")  # not loaded: pooling needs no logits


class LibraryBackbone(Backbone):
    """A model class of transformers, without its head, with its checkpoint's tokenizer.

    Raises MmebError for a folder that holds another architecture, for a missing, unexpected or misshapen weight, and
    for a tokenizer without the image token.
    """

    model_class: ClassVar[type[PreTrainedModel]]
    model_type: ClassVar[str]
    image_token: ClassVar[str]

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_length: int | None = None,
    ) -> None:
        self.module = load_module(self.model_class, self.model_type, checkpoint, device, dtype)
        self.config = self.module.config
        self.dim = self.config.text_config.hidden_size
        self.max_length = max_length or self.config.text_config.max_position_embeddings
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
        self.image_token_id = self.tokenizer.get_vocab().get(self.image_token)
        if self.image_token_id is None:
            raise MmebError(f"The tokenizer of {checkpoint.source} has no {self.image_token}: it is of another model.")
        # Padding stands behind every real token and is never seen, so any id does where the tokenizer names none.
        self.pad_id = self.tokenizer.pad_token_id or 0

    @abstractmethod
    def encode_image(self, image: Image.Image) -> tuple[dict[str, Tensor], int]:
        """The tensors of an RGB image, and how many image tokens it takes."""

    @abstractmethod
    def n_image_tokens(self, size: tuple[int, int]) -> int:
        """How many image tokens an image of (width, height) pixels takes."""

    def encode(self, prompt: str, image: Image.Image | None) -> EncodedRow:
        tensors, n_image = ({}, 0) if image is None else self.encode_image(to_rgb(image))
        ids, is_image = self._expand(self._tokenize(prompt), self._image_at(prompt), n_image)
        ids, is_image, truncated = cut_text(ids, is_image, self.max_length)
        return EncodedRow(ids, is_image, tensors, truncated)

    def n_tokens(self, prompt: str, image_size: tuple[int, int] | None) -> int:
        n_text = len(self._tokenize(prompt))
        n_image = 0 if image_size is None else self.n_image_tokens(image_size) - 1  # its placeholder is counted already
        return min(n_text + n_image, self.max_length)

    def _tokenize(self, prompt: str) -> list[int]:
        """Token ids with one image token for the placeholder; an empty sequence becomes one padding token."""
        text = prompt.replace(PLACEHOLDER, self.image_token)
        return list(self.tokenizer(text, verbose=False).input_ids) or [self.pad_id]

    def _image_at(self, prompt: str) -> int:
        """Which of the prompt's image tokens is the placeholder: a user's text may spell the token out before it."""
        return prompt.partition(PLACEHOLDER)[0].count(self.image_token)

    def _expand(self, ids: list[int], image_at: int, n_image: int) -> tuple[Tensor, Tensor]:
        """`ids` with `n_image` copies of the placeholder's image token, and where these stand."""
        row = torch.tensor(ids)
        if not n_image:
            return row, torch.zeros(len(ids), dtype=torch.bool)
        place = int((row == self.image_token_id).nonzero()[image_at])
        repeats = torch.ones(len(ids), dtype=torch.int64)
        repeats[place] = n_image
        is_image = torch.arange(len(ids)) == place
        return row.repeat_interleave(repeats), is_image.repeat_interleave(repeats)


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB with alpha dropped, and nothing left that would make the library composite it onto white."""
    rgb = image.convert("RGB")
    rgb.info.pop("transparency", None)
    return rgb


def cut_text(ids: Tensor, is_image: Tensor, max_length: int) -> tuple[Tensor, Tensor, bool]:
    """At most `max_length` tokens: text goes from the end, image tokens all stay; and whether any went.

    Raises MmebError where the image tokens leave no room for a single token of text.
    """
    excess = len(ids) - max_length
    if excess <= 0:
        return ids, is_image, False
    n_image = int(is_image.sum())
    if n_image >= max_length:
        raise MmebError(
            f"An image takes {n_image} tokens, which leaves no room for text in max_length={max_length}: "
            "raise max_length or lower the image's resolution."
        )
    keep = torch.ones_like(is_image)
    keep[(~is_image).nonzero()[-excess:, 0]] = False
    return ids[keep], is_image[keep], True


def load_module(
    model_class: type[PreTrainedModel],
    model_type: str,
    checkpoint: Checkpoint,
    device: torch.device | str,
    dtype: torch.dtype,
) -> PreTrainedModel:
    """The checkpoint's weights in `model_class`, each in its place, on `device` (or spread out, for "auto").

    The library knows the older names of its own weights. Only the language-model head may be left over.
    """
    try:
        config = AutoConfig.from_pretrained(checkpoint.path, local_files_only=True)
        found = config.model_type
    except ValueError:  # an architecture that the library lacks
        found = "different"
    except OSError as error:
        raise MmebError(
            f"{checkpoint.path} holds no readable config.json: download {checkpoint.source} again."
        ) from error
    if found != model_type:
        raise MmebError(f"{checkpoint.source} is a {found} model, not {model_type}: name another adapter.")
    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # its report on the head that we leave out would alarm without need
    logging.disable_progress_bar()
    try:
        module, report = model_class.from_pretrained(
            checkpoint.path,
            config=config,
            dtype=dtype,
            device_map="auto" if device == "auto" else {"": torch.device(device)},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to name them below
            local_files_only=True,
        )
    except (RuntimeError, OSError, SafetensorError) as error:
        raise MmebError(f"The weights in {checkpoint.path} can't be loaded: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()
    wrong = {
        "lacks": report["missing_keys"],
        "has no place for": set(report["unexpected_keys"]) - set(LM_HEADS),
        "wants another shape for": {name for name, *_ in report["mismatched_keys"]},
    }
    for what, names in wrong.items():
        if names:
            raise MmebError(
                f"The checkpoint {checkpoint.source} does not fit its config.json: the model {what} "
                f"{len(names)} of its weights, such as {min(names)}."
            )
    return module.eval()
