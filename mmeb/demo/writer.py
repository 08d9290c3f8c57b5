"""The demo on disk, in the layout of MMEB-eval and MMEB-train; from one seed, byte for byte the same."""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from mmeb.demo import classification, grounding, retrieval, vqa
from mmeb.demo.example import Example, Maker, Picture, Side
from mmeb.demo.instructions import diverse, original
from mmeb.tasks import TASKS, Task

DEMO_MARKER = "mmeb-demo.json"  # lies in a demo's folder, so that its scores never pass for real ones

VERSION = 2  # raised whenever the same seed gives other bytes

EVAL_ROWS = 60
TRAIN_ROWS = 500

_CANDIDATES = 40

_MAKERS: dict[str, Maker] = {**classification.MAKERS, **vqa.MAKERS, **retrieval.MAKERS, **grounding.MAKERS}
_Row = dict[str, str | list[str]]


def write_demo(folder: Path, *, seed: int = 0, eval_rows: int = EVAL_ROWS, train_rows: int = TRAIN_ROWS) -> None:
    """Write a small MMEB of drawn pictures: all 36 tasks to score, 20 of them to train on.

    `folder` gets `MMEB-eval/` and `MMEB-train/` as the official repositories are laid out, in about 20 seconds, with
    so many rows a task and a training subset.
    """
    evaluation, training = folder / "MMEB-eval", folder / "MMEB-train"
    marker = json.dumps({"generator": VERSION, "seed": seed}) + "\n"
    for top in (folder, evaluation):
        top.mkdir(parents=True, exist_ok=True)
        (top / DEMO_MARKER).write_text(marker, encoding="utf-8")
    with _image_zip(evaluation / "images.zip") as images:
        for task in TASKS:
            rows = _rows(task, _Pictures(images, f"{task.name}/"), Random(f"{seed}/eval/{task.name}"), eval_rows)
            _write_rows(evaluation / task.name / "test-00000-of-00001.parquet", rows)
    for task in TASKS:
        if task.train_subset is not None:
            _write_training(training, task, task.train_subset, seed, train_rows)
    _write_card(evaluation, {task.name: {"test": "test"} for task in TASKS}, seed)
    splits = {name: name for name in ("original", "diverse_instruction")}
    _write_card(training, {task.train_subset: splits for task in TASKS if task.train_subset}, seed)


class _Pictures:
    """Writes each picture once, below `prefix`, and tells its name."""

    def __init__(self, archive: zipfile.ZipFile, prefix: str) -> None:
        self._archive, self._prefix = archive, prefix
        self._names: dict[Picture, str] = {}

    def name(self, picture: Picture | None) -> str:
        """The picture's path in the archive; empty for none."""
        if picture is None:
            return ""
        if picture not in self._names:
            name = self._names[picture] = f"{self._prefix}{len(self._names):05d}.{picture.suffix}"
            encoded = io.BytesIO()
            if picture.suffix == "jpg":
                picture.image.save(encoded, "JPEG", quality=90)
            else:
                picture.image.save(encoded, "PNG", compress_level=4)
            entry = zipfile.ZipInfo(name)  # its time stamp is fixed: 1980
            entry.create_system = 3
            self._archive.writestr(entry, encoded.getvalue())
        return self._names[picture]


@contextmanager
def _image_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        yield archive


def _rows(task: Task, pictures: _Pictures, rng: Random, count: int) -> list[_Row]:
    examples = [_MAKERS[task.name](rng) for _ in range(count)]
    if classes := classification.CLASSES.get(task.name):
        pool = [Side(name) for name in classes]
    else:
        pool = [example.target for example in examples]
    rows: list[_Row] = []
    for example in examples:
        candidates = _candidates(example, pool, rng)
        rows.append(
            {
                "qry_text": str(task.query_prompt(example.query.text)),
                "qry_img_path": pictures.name(example.query.picture),
                "tgt_text": [str(task.target_prompt(side.text)) for side in candidates],
                "tgt_img_path": [pictures.name(side.picture) for side in candidates],
            }
        )
    return rows


def _candidates(example: Example, pool: Sequence[Side], rng: Random) -> list[Side]:
    """The right candidate, those that are near it, and others of the pool: no two that mean the same."""
    sides: dict[str, Side] = {}
    for side in (example.target, *example.near, *rng.sample(pool, len(pool))):
        sides.setdefault(side.sense, side)
    return list(sides.values())[:_CANDIDATES]


def _write_training(folder: Path, task: Task, subset: str, seed: int, count: int) -> None:
    rng = Random(f"{seed}/train/{subset}")
    examples = [_MAKERS[task.name](rng) for _ in range(count)]
    negatives = [_negative(example, examples, rng) for example in examples]
    with _image_zip(folder / "images_zip" / f"{subset}.zip") as archive:
        pictures = _Pictures(archive, f"{subset}/Train/")
        for split, wordings in (("original", (original(task),)), ("diverse_instruction", diverse(task))):
            rows = [
                _train_row(rng.choice(wordings), example, negative, pictures)
                for example, negative in zip(examples, negatives, strict=True)
            ]
            _write_rows(folder / subset / f"{split}-00000-of-00001.parquet", rows)


def _negative(example: Example, examples: Sequence[Example], rng: Random) -> Side:
    """A candidate that nearly answers the query, else the answer to another one; nothing where all answers agree."""
    if example.near:
        return example.near[0]
    if all(other.target.sense == example.target.sense for other in examples):
        return Side()
    while (wrong := rng.choice(examples).target).sense == example.target.sense:
        pass
    return wrong


def _train_row(task: Task, example: Example, negative: Side, pictures: _Pictures) -> _Row:
    row: _Row = {}
    for text, path, prompt, picture in (
        ("qry", "qry_image_path", task.query_prompt(example.query.text), example.query.picture),
        ("pos_text", "pos_image_path", task.target_prompt(example.target.text), example.target.picture),
        ("neg_text", "neg_image_path", task.target_prompt(negative.text), negative.picture),
    ):
        row[text] = "" if text == "neg_text" and negative == Side() else str(prompt)
        row[path] = f"images/{pictures.name(picture)}" if picture else ""
    return row


def _write_rows(path: Path, rows: list[_Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def _write_card(folder: Path, configs: dict[str, dict[str, str]], seed: int) -> None:
    """README.md with the configs, as the hub reads them, for `datasets.load_dataset(folder, subset)`."""
    lines = ["---", "configs:"]
    for subset, splits in configs.items():
        lines += [f"- config_name: {subset}", "  data_files:"]
        for split, stem in splits.items():
            lines += [f"  - split: {split}", f"    path: {subset}/{stem}-*.parquet"]
    lines += [
        "---",
        "",
        f"# {folder.name}, the demo",
        "",
        "Drawn pictures in the layout of the Massive Multimodal Embedding Benchmark, made by",
        f"`mmeb data demo --seed {seed}` (generator {VERSION}). Scores on it say nothing about real tasks.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
