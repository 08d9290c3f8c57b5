"""The demo's model: a small transformer over words and image patches, in one space for all that MMEB pairs."""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.models.base import Batch, Capabilities, EmbeddingModel
from mmeb.models.checkpoints.checkpoint import Checkpoint
from mmeb.models.checkpoints.weights import load_state_dict, load_strict, save_weights
from mmeb.tasks import PLACEHOLDER

CONFIG, WEIGHTS = "config.json", "model"
_MODEL_TYPE = "mmeb-demo"

_WORD = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")
_HASHES = 2  # a word is the sum of so many rows, so that two words that share one still differ


@dataclass(frozen=True)
class DemoConfig:
    """Sizes of the network. `buckets` rows stand for all words, by hash; `image_size` pixels are an image's sides."""

    dim: int = 128
    layers: int = 3
    heads: int = 4
    buckets: int = 4096
    max_length: int = 96
    image_size: int = 96


class DemoModel(EmbeddingModel):
    """Words and patches behind a start token, whose last state is the embedding.

    Its input is the row's full prompt without the placeholder: the instruction tells which of an image's sides is asked
    for.
    """

    adapter = "demo"
    capabilities = Capabilities(training=True, image_tower=("patches",))

    def __init__(self, name: str, config: DemoConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.name = name
        self.config = config
        self.dim = config.dim
        self.device = device
        self.dtype = dtype
        self.module: nn.Module = _Network(config).to(device, dtype).eval()
        self._checkpoint: dict[str, Any] = {}

    @classmethod
    def new(cls, config: DemoConfig, *, seed: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """A model with random weights, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = cls("demo", config, torch.device("cpu"), dtype)
        model.device = device
        model.module.to(device)
        return model

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, *, device: torch.device | str, dtype: torch.dtype, options: Mapping[str, str]
    ) -> Self:
        cls.parse_options(options)
        model = cls(checkpoint.name, _read_config(checkpoint), torch.device(device), dtype)
        load_strict(model.module, load_state_dict(checkpoint.path), checkpoint.source)
        model._checkpoint = checkpoint.provenance
        return model

    def save(self, folder: Path, state: Mapping[str, Tensor] | None = None) -> None:
        """The weights in half precision: the file is bundled."""
        state = self.module.state_dict() if state is None else state
        save_weights(self.module, folder, WEIGHTS, {name: tensor.half() for name, tensor in state.items()})
        config = {"model_type": _MODEL_TYPE, **asdict(self.config)}
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def preprocess(self, items: Sequence[Item]) -> Batch:
        words = [_words(item) for item in items]
        lengths = [min(len(row), self.config.max_length) for row in words]
        ids = np.zeros((len(items), max(lengths, default=0), _HASHES), dtype=np.int64)
        for row, (length, line) in enumerate(zip(lengths, words, strict=True)):
            for place, word in enumerate(line[:length]):
                ids[row, place] = self._buckets(word)
        inputs = {"ids": torch.from_numpy(ids), "lengths": torch.tensor(lengths, dtype=torch.int64)}
        images = [item.image for item in items if item.image is not None]
        if images and len(images) < len(items):
            raise ValueError("a batch holds items with an image or items without one, not both")
        if images:
            size = (self.config.image_size, self.config.image_size)
            pixels = {
                image: np.asarray(image.rgb().resize(size, Image.Resampling.BILINEAR))
                for image in dict.fromkeys(images)
            }
            stacked = np.stack([pixels[image] for image in images])
            inputs["pixels"] = torch.from_numpy(stacked).permute(0, 3, 1, 2)
        tokens = sum(lengths) + len(images) * self._patches + len(items)
        return Batch(
            inputs,
            size=len(items),
            tokens=tokens,
            padding=ids.shape[0] * ids.shape[1] - sum(lengths),
            truncated=sum(len(row) > self.config.max_length for row in words),
        )

    def embed(self, batch: Batch) -> Tensor:
        hidden: Tensor = self.module(**batch.inputs)
        return normalize(hidden.float(), dim=-1)

    def cost(self, item: Item) -> int:
        length = min(len(_words(item)), self.config.max_length)
        return 1 + length + (self._patches if item.image is not None else 0)

    def group(self, item: Item) -> bool:
        return item.image is not None

    @classmethod
    def render(cls, item: Item, options: Any) -> str:
        return item.prompt if item.image is not None else item.prompt.replace(PLACEHOLDER, "").lstrip()

    @property
    def provenance(self) -> dict[str, Any]:
        size = self.config.image_size
        return {
            **self._checkpoint,
            "adapter": self.adapter,
            "prompt": "the row's whole prompt without placeholder, version 1",
            "image": f"{size} x {size}, bilinear, aspect ignored",
            "max_length": self.config.max_length,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def _patches(self) -> int:
        return _patch_grid(self.config.image_size) ** 2

    def _buckets(self, word: str) -> list[int]:
        return [zlib.crc32(f"{turn}{word}".encode()) % self.config.buckets for turn in range(_HASHES)]


def _words(item: Item) -> list[str]:
    return _WORD.findall(item.prompt.replace(PLACEHOLDER, " ").lower())


def _read_config(checkpoint: Checkpoint) -> DemoConfig:
    try:
        fields = json.loads((checkpoint.path / CONFIG).read_text(encoding="utf-8"))
        if (model_type := fields.pop("model_type")) != _MODEL_TYPE:
            raise ValueError(f"its model_type is {model_type}")
        return DemoConfig(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MmebError(
            f"{checkpoint.source} holds no {CONFIG} of the adapter demo ({error}): name another --adapter."
        ) from None


def _patch_grid(image_size: int) -> int:
    return image_size // 24


class _Stem(nn.Sequential):
    """Pixels (n, 3, size, size) to patches (n, dim, size / 24, size / 24), by three convolutions."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 7, stride=4, padding=3),
            nn.GroupNorm(1, 32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.GroupNorm(1, 64),
            nn.ReLU(),
            nn.Conv2d(64, dim, 3, stride=3),
        )


class _Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(dim)
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.before_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))

    def forward(self, hidden: Tensor, mask: Tensor, n_states: int | None = None) -> Tensor:
        """The first `n_states` states, all by default, of `hidden` (n, length, dim).

        `mask` is (n, 1, 1, length), true for real tokens.
        """
        n, length, dim = hidden.shape
        heads = self.query_key_value(self.before_attention(hidden)).view(n, length, 3, self.heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(query[:, :, :n_states], key, value, attn_mask=mask)
        hidden = hidden[:, :n_states]
        hidden = hidden + self.attention_out(mixed.transpose(1, 2).reshape(n, -1, dim))
        out: Tensor = hidden + self.mlp(self.before_mlp(hidden))
        return out


class _Network(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        dim = config.dim
        self.words = nn.Embedding(config.buckets, dim)
        self.word_places = nn.Parameter(torch.randn(config.max_length, dim) * 0.1)
        self.patches = _Stem(dim)
        self.patch_places = nn.Parameter(torch.randn(_patch_grid(config.image_size) ** 2, dim) * 0.1)
        self.start = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.ModuleList(_Block(dim, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.words.weight, std=0.3)

    def forward(self, ids: Tensor, lengths: Tensor, pixels: Tensor | None = None) -> Tensor:
        """`ids` (n, length, hashes), `lengths` (n,), `pixels` uint8 (n, 3, size, size); returns (n, dim)."""
        n, length = ids.shape[:2]
        tokens = self.words(ids).sum(dim=2) + self.word_places[:length]
        real = torch.arange(length, device=ids.device) < lengths[:, None]
        if pixels is not None:
            patches = self.patches(pixels.to(tokens.dtype) / 127.5 - 1).flatten(2).transpose(1, 2)
            tokens = torch.cat([patches + self.patch_places, tokens], dim=1)
            real = torch.cat([real.new_ones(n, patches.shape[1]), real], dim=1)
        # The first token starts as the mean of all: from a constant, training would hardly leave the collapsed state.
        mean = (tokens * real[..., None]).sum(dim=1, keepdim=True) / real.sum(dim=1).clamp(min=1)[:, None, None]
        hidden = torch.cat([self.start + mean, tokens], dim=1)
        mask = torch.cat([real.new_ones(n, 1), real], dim=1)[:, None, None, :]
        for block in self.blocks[:-1]:
            hidden = block(hidden, mask)
        embedded: Tensor = self.out(self.norm(self.blocks[-1](hidden, mask, 1)[:, 0]))
        return embedded
