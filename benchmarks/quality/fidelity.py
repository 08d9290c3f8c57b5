"""How far are our vectors from the reference implementations', and how far do they move with their batch?

    python -m benchmarks.quality.fidelity [--json FILE]     # every setting, every row: the tables of docs/fidelity.md
    python -m benchmarks.quality.fidelity --only qwen2_vl   # some settings
    python -m benchmarks.quality.fidelity --every 10        # some rows (then predictions can't be compared)

The numbers of the reference implementations stand in tests/golden, made with tiny checkpoints in the official formats,
each row encoded by itself.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.support.checkpoints import GOLDEN as CHECKPOINTS
from benchmarks.support.figures import json_option, show
from mmeb.data.item import Item
from mmeb.models.adapters.dual_encoder import DualEncoder
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model

GOLDEN = CHECKPOINTS.parent
IMAGES = GOLDEN / "data/images"
BATCH_SIZES = (4, 32)
BATCHED_ROWS = 3  # of each side of each task

Vectors = NDArray[np.float32]


class Setting(NamedTuple):
    """A checkpoint in tests/golden/ckpt with an adapter's options, and the files that hold its reference numbers."""

    checkpoint: str
    setting: str
    adapter: str
    options: dict[str, str]


def _clip(text: str) -> dict[str, str]:
    return {"text": text, "fusion": "sum", "text_mask": "reference"}


SUITES = [
    *(Setting("phi3_v", f"c{number}", "phi35v", {"num_crops": str(number)}) for number in (4, 16)),
    *(Setting("qwen2_vl", size, "qwen2-vl", {"image_resolution": size}) for size in ("low", "mid", "high", "none")),
    *(Setting("llava_next", size, "llava-next", {"image_resolution": size}) for size in ("low", "mid", "high", "none")),
    *(Setting("clip", text, "clip", _clip(text)) for text in ("raw", "strip")),
]
LORAS = [
    Setting("phi3_v_dora", "phi3_v", "phi35v", {}),
    Setting("qwen2_vl_dora", "qwen2_vl", "qwen2-vl", {"image_resolution": "low"}),
]
PARTS = [
    Setting("e5v", "default", "e5v", {}),
    Setting("blip", "default", "blip", {}),
    Setting("blip2", "pooling=first", "blip2", {"pooling": "first"}),
]
MOVING = [
    Setting("phi3_v", "c4", "phi35v", {}),
    Setting("qwen2_vl", "none", "qwen2-vl", {"image_resolution": "none"}),
    Setting("llava_next", "low", "llava-next", {"image_resolution": "low"}),
    Setting("e5v", "default", "e5v", {}),
    Setting("clip", "default", "clip", {}),
    Setting("blip", "default", "blip", {}),
    Setting("blip2", "default", "blip2", {}),
]


def load(setting: Setting, dtype: str = "float32", **more: str) -> EmbeddingModel:
    folder = str(GOLDEN / "ckpt" / setting.checkpoint)
    return load_model(folder, adapter=setting.adapter, device="cpu", dtype=dtype, options=setting.options | more)


def item(prompt: str, path: str) -> Item:
    return Item(prompt, image=IMAGES / path if path else None)


def embed(model: EmbeddingModel, items: Sequence[Item], *, raw: bool = False) -> Vectors:
    """Vectors (n, dim) of one batch; `raw` ones of towers are sums that are not normalised yet."""
    with torch.inference_mode():
        batch = model.preprocess(items)
        vectors = model.features(batch) if raw and isinstance(model, DualEncoder) else model.embed(batch)
    return vectors.float().numpy()


def kind(keys: Sequence[tuple[str, str]]) -> str:
    """What a task's items consist of: only those whose every item is an instruction beside an image are an image."""
    if not any(path for _, path in keys):
        return "text"
    return "image" if len({prompt for prompt, _ in keys}) == 1 else "image+text"


def compare_suite(setting: Setting, every: int) -> list[list[Any]]:
    """A line for each pair of modalities: tasks, the largest difference of a coordinate, predictions that agree."""
    path = GOLDEN / "eval" / f"{setting.checkpoint}_{setting.setting}_bs1"
    subsets, reference = json.loads(path.with_suffix(".json").read_text())["subsets"], np.load(path.with_suffix(".npz"))
    model = load(setting)
    found: dict[str, list[tuple[float, int, int]]] = {}
    for task, keys in subsets.items():
        rows = {side: [(prompt, path) for prompt, path in keys[f"{side}_keys"]] for side in ("qry", "tgt")}
        vectors = {
            side: np.concatenate([embed(model, [item(*row)], raw=True) for row in chosen[::every]])
            for side, chosen in rows.items()
        }
        difference = max(float(np.abs(vectors[side] - reference[f"{task}/{side}"][::every]).max()) for side in vectors)
        right, total = (0, 0) if every > 1 else predictions(task, rows, vectors, reference[f"{task}/pred"])
        found.setdefault(f"{kind(rows['qry'])} → {kind(rows['tgt'])}", []).append((difference, right, total))
    lines = []
    for pair, figures in sorted(found.items()):
        right, total = sum(each[1] for each in figures), sum(each[2] for each in figures)
        worst = f"{max(each[0] for each in figures):.1e}"
        lines.append([setting.checkpoint, setting.setting, pair, worst, f"{right} of {total}" if total else ""])
    return lines


def predictions(
    task: str, rows: dict[str, list[tuple[str, str]]], vectors: dict[str, Vectors], expected: NDArray[np.int64]
) -> tuple[int, int]:
    """In how many of a task's rows the reference's candidate is chosen, and how many there are."""
    place = {side: {row: number for number, row in enumerate(rows[side])} for side in rows}
    unit = {side: values / np.linalg.norm(values, axis=1, keepdims=True) for side, values in vectors.items()}
    right = 0
    data = pd.read_parquet(GOLDEN / "data/MMEB-eval" / task).to_dict("records")
    for row, wanted in zip(data, expected, strict=True):
        query = unit["qry"][place["qry"][row["qry_text"], row["qry_img_path"]]]
        candidates = [place["tgt"][key] for key in zip(row["tgt_text"], row["tgt_img_path"], strict=True)]
        right += int(np.argmax(unit["tgt"][candidates] @ query)) == wanted
    return right, len(data)


def compare_lora(setting: Setting) -> list[list[Any]]:
    rows = json.loads((GOLDEN / f"{setting.checkpoint}.json").read_text())["rows"]
    reference = np.load(GOLDEN / f"{setting.checkpoint}.npz")
    lines = []
    for option, name in (("merge", "merged"), ("keep", "unmerged")):
        model = load(setting, base=str(GOLDEN / "ckpt" / setting.setting), lora=option)
        differences: dict[str, float] = {}
        for number, (prompt, path) in enumerate(rows):
            moved = float(np.abs(embed(model, [item(prompt, path)])[0] - reference[f"{name}/{number}"]).max())
            what = "image+text" if path else "text"
            differences[what] = max(moved, differences.get(what, 0))
        lines += [[setting.checkpoint, name, what, f"{worst:.1e}", ""] for what, worst in sorted(differences.items())]
    return lines


def compare_part(setting: Setting) -> list[list[Any]]:
    """A line for each modality of E5-V, BLIP and BLIP-2: what their own templates and contrastive heads give."""
    name = setting.checkpoint
    told = json.loads((GOLDEN / f"clip_blip/{name}.json").read_text())
    reference = np.load(GOLDEN / f"clip_blip/{name}.npz")
    texts = [Item(text=text) for text in told["texts"]]
    images = [Item(image=IMAGES / path) for path in told["images"]]
    items = {"text": texts, "image": images}
    if name == "e5v":
        items["image+text"] = [Item(text=one.text, image=two.image) for one, two in zip(texts, images, strict=False)]
    model, lines = load(setting), []
    for what, chosen in items.items():
        ours = np.concatenate([embed(model, [one]) for one in chosen])
        if name == "e5v":
            theirs = np.stack([reference[f"{what.replace('+', '_')}{number}/emb"] for number in range(len(chosen))])
        else:
            theirs = reference[f"{what}_embeds"]
            theirs = theirs[:, 0] if theirs.ndim == 3 else theirs  # BLIP-2's first query token
        lines.append([name, setting.setting, what, f"{np.abs(ours - theirs).max():.1e}", ""])
    return lines


def compare_batches(setting: Setting, dtype: str) -> list[Any]:
    """The largest move of a coordinate, and of the direction, from a row alone to it in a batch, in three orders."""
    subsets = json.loads((GOLDEN / "eval/phi3_v_c4_bs1.json").read_text())["subsets"]
    keys = [key for task in subsets.values() for side in ("qry", "tgt") for key in task[f"{side}_keys"][:BATCHED_ROWS]]
    model, items = load(setting, dtype), [item(*key) for key in keys]
    alone = np.concatenate([embed(model, [one]) for one in items])
    groups: dict[Any, list[int]] = {}
    for number, one in enumerate(items):
        groups.setdefault(model.group(one), []).append(number)
    line: list[Any] = [setting.checkpoint, setting.setting, dtype, len(items)]
    shuffled = np.random.default_rng(0).permutation(len(items))
    for size in BATCH_SIZES:
        moved, turned = 0.0, 0.0
        for order in (range(len(items)), range(len(items))[::-1], shuffled):
            rank = {int(number): place for place, number in enumerate(order)}
            for group in groups.values():
                members = sorted(group, key=rank.__getitem__)
                for start in range(0, len(members), size):
                    chosen = members[start : start + size]
                    vectors = embed(model, [items[number] for number in chosen])
                    moved = max(moved, float(np.abs(vectors - alone[chosen]).max()))
                    turned = max(turned, 1 - float((vectors * alone[chosen]).sum(axis=1).min()))
        line += [f"{moved:.1e}", f"{max(turned, 0):.0e}"]
    return line


@click.command(help=__doc__)
@json_option
@click.option("--only", help="Settings whose name, such as `qwen2_vl low`, holds this.")
@click.option("--every", default=1, show_default=True, help="Of each task only every n-th row.")
@click.option("--batches/--no-batches", default=True, help="Whether to try batch sizes and orders.")
def main(json_file: Path | None, only: str | None, every: int, batches: bool) -> None:
    def wanted(one: Setting) -> bool:
        return only is None or only in f"{one.checkpoint} {one.setting}"

    lines = [line for setting in SUITES if wanted(setting) for line in compare_suite(setting, every)]
    lines += [line for setting in LORAS if wanted(setting) for line in compare_lora(setting)]
    lines += [line for part in PARTS if wanted(part) for line in compare_part(part)]
    header = ("checkpoint", "setting", "query → target", "largest difference", "same predictions")
    rows = [dict(zip(header, line, strict=True)) for line in lines]
    moved = []
    if batches:
        moves = [compare_batches(one, dtype) for one in MOVING if wanted(one) for dtype in ("float32", "bf16")]
        sizes = [name for size in BATCH_SIZES for name in (f"batch {size}: coordinate", f"batch {size}: 1 − cosine")]
        columns = ("checkpoint", "setting", "dtype", "items", *sizes)
        moved = [dict(zip(columns, line, strict=True)) for line in moves]
        click.echo(tabulate(moved, headers="keys", tablefmt="github", disable_numparse=True) + "\n")
    show(rows, json_file, numbers=False, more=moved)


if __name__ == "__main__":
    main()
