"""One task, whole, beside the tools that people use today: same weights, same images, same machine, taking turns.

500 image queries and 1000 candidate images of real size, each another one, from file to the rank of every candidate.
`mteb` goes its own way for such models (its CLIP class, its class for VLM2Vec-V2.0) over its own loader;
`sentence-transformers` encodes files with `encode`. Both with their defaults. An item is an image alone, since the
three write an instruction in different ways. That they compute the same is checked: `agreement` is the least cosine of
an item's vector with ours, after the mean over all items is taken off (random weights give all a common part).

    python -m benchmarks.evaluation.whole_task [--json FILE]    # fetches the peers first (benchmarks/support/peers.py)
    python -m benchmarks.evaluation.whole_task --no-peers
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.support.checkpoints import write_clip, write_qwen2_vl
from benchmarks.support.figures import json_option, show
from benchmarks.support.peers import add_peers, agreement
from benchmarks.support.photographs import write_photographs
from mmeb.data.item import Item
from mmeb.evaluation.encode import encode
from mmeb.models.loading import load_model
from mmeb.tasks import PLACEHOLDER

Vectors = NDArray[np.float32]
Encoder = Callable[[Sequence[Path]], Vectors]
OPTIONS = {"clip": {}, "qwen2-vl": {"image_resolution": "none", "positions": "2d"}}
# What a message with an image alone becomes: the image's tokens and nothing else.
IMAGE_ALONE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|image_pad|>{% endif %}{% endfor %}{% endfor %}"
)


def ours(adapter: str, folder: Path) -> Encoder:
    model = load_model(str(folder), adapter=adapter, device="cpu", dtype="float32", options=OPTIONS[adapter])
    return lambda paths: encode(model, [Item(PLACEHOLDER, image=path) for path in paths])


def sentence_transformers(adapter: str, folder: Path) -> Encoder:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(folder))
    modules = [transformer, Normalize()]
    if adapter == "qwen2-vl":
        transformer.processor.chat_template = IMAGE_ALONE
        modules.insert(1, Pooling(transformer.get_embedding_dimension(), "lasttoken"))
    model = SentenceTransformer(modules=modules, device="cpu")
    return lambda paths: np.asarray(model.encode([{"image": str(path)} for path in paths]))


def mteb(adapter: str, folder: Path) -> Encoder:
    import datasets
    from mteb import get_task
    from mteb._create_dataloaders import create_dataloader
    from mteb.models.model_implementations.clip_models import CLIPModel
    from mteb.models.model_implementations.vlm2vec_models import VLM2VEC2Wrapper
    from mteb.types import PromptType
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    if adapter == "clip":
        model = CLIPModel(str(folder), revision=None, device="cpu")
        model.model.eval()
    else:  # as its __init__ would, which knows one checkpoint
        model = VLM2VEC2Wrapper.__new__(VLM2VEC2Wrapper)
        model.device = "cpu"
        model.processor = AutoProcessor.from_pretrained(folder)
        model.processor.padding_side = "left"
        model.model = Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    task = get_task("NIGHTSI2IRetrieval").metadata
    datasets.disable_progress_bars()

    def embed(paths: Sequence[Path]) -> Vectors:
        data = datasets.Dataset.from_dict({"image": [str(path) for path in paths]})
        data = data.cast_column("image", datasets.Image(mode="RGB"))
        loader = create_dataloader(data, task_metadata=task, prompt_type=PromptType.query)
        told: dict[str, Any] = {"task_metadata": task, "hf_split": "test", "hf_subset": "default"}
        return np.asarray(model.encode(loader, **told, show_progress_bar=False))

    return embed


TOOLS: dict[str, Callable[[str, Path], Encoder]] = {
    "mmeb": ours,
    "mteb": mteb,
    "sentence-transformers": sentence_transformers,
}


def run(encoder: Encoder, queries: Sequence[Path], candidates: Sequence[Path]) -> tuple[float, Vectors]:
    """Seconds from files to ranks, and all vectors."""
    started = time.perf_counter()
    vectors = [encoder(side) for side in (queries, candidates)]
    unit = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in vectors]
    np.argsort(-(unit[0] @ unit[1].T), axis=1)
    return time.perf_counter() - started, np.concatenate(unit)


@click.command(help=__doc__)
@json_option
@click.option("--queries", default=500, show_default=True)
@click.option("--candidates", default=1000, show_default=True)
@click.option("--repeats", default=1, show_default=True)
@click.option("--peers/--no-peers", default=True)
@click.option("--tiny", is_flag=True, help="Tiny models: does it work?")
def main(json_file: Path | None, queries: int, candidates: int, repeats: int, peers: bool, tiny: bool) -> None:
    if peers:
        add_peers()
    tools = TOOLS if peers else {"mmeb": ours}
    figures = []
    with tempfile.TemporaryDirectory() as temporary:
        paths = write_photographs(Path(temporary, "photographs"), queries + candidates)
        folders = {
            "clip": write_clip(Path(temporary, "clip"), "tiny" if tiny else "small"),
            "qwen2-vl": write_qwen2_vl(Path(temporary, "qwen2-vl"), "tiny" if tiny else "small"),
        }
        for adapter, folder in folders.items():
            encoders = {name: tool(adapter, folder) for name, tool in tools.items()}
            for encoder in encoders.values():
                encoder(paths[:4])  # warm-up
            seconds: dict[str, list[float]] = {name: [] for name in tools}
            vectors: dict[str, Vectors] = {}
            for _ in range(repeats):
                for name, encoder in encoders.items():
                    took, vectors[name] = run(encoder, paths[:queries], paths[queries:])
                    seconds[name].append(took)
            for name in tools:
                median = statistics.median(seconds[name])
                figures.append(
                    {
                        "model": adapter,
                        "tool": name,
                        "seconds": median,
                        "items/s": len(paths) / median,
                        "times mmeb's": median / statistics.median(seconds["mmeb"]),
                        "agreement": agreement(vectors[name], vectors["mmeb"]),
                    }
                )
    show(figures, json_file, peers=["mteb", "sentence-transformers"] if peers else [])


if __name__ == "__main__":
    main()
