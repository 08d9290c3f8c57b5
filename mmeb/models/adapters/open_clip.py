"""The models of the open_clip library, with its own preprocessing and tokenizers."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.tokenizer import HFTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModel

from mmeb.errors import MmebError
from mmeb.models.adapters.dual_encoder import DualEncoder, Texts
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.weights import load_state_dict, load_strict

CONFIG = "open_clip_config.json"
# No token of its vocabularies is longer than this in characters: what lies beyond can't reach the context, and the
# library's own tokenizer takes quadratic time over it.
_LONGEST_TOKEN = 128


class OpenClipModel(DualEncoder):
    adapter = "open_clip"
    capabilities = replace(
        DualEncoder.capabilities,
        image_tower=("visual",),
        weight_files=("open_clip_model", "open_clip_pytorch_model"),
    )
    preprocessing: PreprocessCfg
    transform: Any

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        parsed = cls.parse_options(options)
        config = _read_config(checkpoint)
        text = config.get("text_cfg", {})
        name = f"{open_clip.factory.LOCAL_DIR_PREFIX}{checkpoint.path}"
        # The library passes on what the configuration says; none of its other tokenizers takes the argument.
        trust = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
        logging.disable(logging.WARNING)  # the library would warn of the weights that it must not load
        try:
            _check_text_tower(text.get("hf_model_name"))
            # By itself, it resizes position embeddings of another size without a warning.
            module = open_clip.create_model(name, load_weights=False, pretrained_image=False, pretrained_text=False)
            tokenizer = open_clip.get_tokenizer(name, **trust)
        except (RuntimeError, OSError, ValueError, TypeError, KeyError) as error:
            raise MmebError(f"{checkpoint.source} has an {CONFIG} that open_clip can't build: {error}.") from error
        finally:
            logging.disable(logging.NOTSET)
        if torch.device(device).type != "meta":
            state = convert_state_dict(module, load_state_dict(checkpoint.path, cls.capabilities.weight_files))
            load_strict(module, state, checkpoint.source)
        module = module.to(device=device, dtype=dtype).eval()
        grid = getattr(module.visual, "grid_size", (16, 16))  # towers of the timm library don't tell
        model = cls(
            checkpoint,
            module,
            parsed,
            dim=int(config["embed_dim"]),
            context=tokenizer.context_length,
            image_tokens=grid[0] * grid[1] + 1,
        )
        model.tokenizer, model.preprocessing = tokenizer, PreprocessCfg(**module.visual.preprocess_cfg)
        model.transform = image_transform_v2(model.preprocessing, is_train=False)
        return model

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        return {"pixel_values": torch.stack([self.transform(image) for image in images])}

    def tokenize(self, texts: Sequence[str]) -> Texts:
        lengths = [self._length(text) for text in texts]
        ids = self.tokenizer([self._cut(text) for text in texts])
        return Texts(
            ids, sum(min(length, self.context) for length in lengths), sum(length > self.context for length in lengths)
        )

    def text_length(self, text: str) -> int:
        return self.context

    def image_features(self, inputs: Mapping[str, Tensor]) -> Tensor:
        features: Tensor = self.module.encode_image(inputs["pixel_values"].to(self.dtype))
        return features

    def text_features(self, ids: Tensor) -> Tensor:
        features: Tensor = self.module.encode_text(ids)
        return features

    @property
    def image_policy(self) -> dict[str, Any]:
        shown = ("size", "interpolation", "resize_mode", "mean", "std")
        policy = {"backend": "pil", **{name: getattr(self.preprocessing, name) for name in shown}}
        plain: dict[str, Any] = json.loads(json.dumps(policy))  # lists for tuples, as a result file has them
        return plain

    def _cut(self, text: str) -> str:
        limit = self.context * _LONGEST_TOKEN
        return text if len(text) <= limit else " ".join(text.split())[:limit]

    def _length(self, text: str) -> int:
        """How many tokens a text has before it is cut at the context length, its ends counted."""
        text = self._cut(text)
        if isinstance(self.tokenizer, HFTokenizer):
            return len(self.tokenizer.tokenizer(self.tokenizer.clean_fn(text)).input_ids)
        return len(self.tokenizer.encode(text)) + 2


def _check_text_tower(name: str | None) -> None:
    """Raise ValueError for a text tower that is not the library's: it would ask whether to run the hub's code."""
    if name:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        with torch.device("meta"):
            AutoModel.from_config(config, trust_remote_code=False)


def _read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.path / CONFIG
    try:
        config: dict[str, Any] = json.loads(path.read_text())["model_cfg"]
    except FileNotFoundError:
        raise MmebError(
            f"{checkpoint.source} has no {CONFIG}, so it is no open_clip model: name another --adapter."
        ) from None
    except (OSError, ValueError, KeyError) as error:
        raise MmebError(f"{path} can't be read ({error}): download the model again.") from None
    return config
