"""Data with MMEB's shape and no content: its 36 tasks, rows, candidates, lengths of text and sizes of image.

Candidates a row and distinct candidates a task are the counts of the real data where these are published; where they
are not, every row has the same 1000. Lengths of text are a guess at each set's from its paper and examples: log-normal
in words, median and spread.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.support.photographs import write_headers
from mmeb.tasks import TASKS, Modality, Task

ROWS = 1000
_WORDS = """
the of in on with and to is at man woman dog cat street house red blue white black small large old new field water tree
table train bus sign people standing sitting next near behind front game city news report company president school year
world photo picture holding wearing looking playing river mountain building window door
"""


class Shape(NamedTuple):
    """Candidates of a row and of the whole task; median words of a query's and of a candidate's own text."""

    width: int
    corpus: int
    query_words: float
    candidate_words: float


SHAPES = {
    "ImageNet-1K": Shape(1000, 1000, 0, 2),
    "N24News": Shape(24, 24, 18, 1),
    "HatefulMemes": Shape(2, 2, 0, 1),
    "VOC2007": Shape(20, 20, 0, 1),
    "SUN397": Shape(397, 397, 0, 1.5),
    "Place365": Shape(365, 365, 0, 1.5),
    "ImageNet-A": Shape(1000, 1000, 0, 2),
    "ImageNet-R": Shape(200, 200, 0, 1.5),
    "ObjectNet": Shape(113, 113, 0, 1.5),
    "Country211": Shape(211, 211, 0, 1.2),
    "OK-VQA": Shape(1000, 2555, 8, 1.2),
    "A-OKVQA": Shape(894, 894, 9, 1.2),
    "DocVQA": Shape(1000, 4463, 8, 2),
    "InfographicsVQA": Shape(1000, 1730, 11, 1.5),
    "ChartQA": Shape(1000, 1601, 10, 1.2),
    "Visual7W": Shape(1000, 3480, 7, 2.5),
    "ScienceQA": Shape(736, 736, 20, 3),
    "VizWiz": Shape(1000, 1436, 7, 1.5),
    "GQA": Shape(1000, 6850, 9, 8),
    "TextVQA": Shape(1000, 3343, 7, 1.7),
    "VisDial": Shape(1000, 1000, 110, 0),
    "CIRR": Shape(1000, 2197, 11, 0),
    "VisualNews_t2i": Shape(1000, 1000, 18, 0),
    "VisualNews_i2t": Shape(1000, 1000, 0, 18),
    "MSCOCO_t2i": Shape(1000, 1000, 10, 0),
    "MSCOCO_i2t": Shape(1000, 1000, 0, 10),
    "NIGHTS": Shape(1000, 1000, 0, 0),
    "WebQA": Shape(1000, 1000, 17, 12),
    "FashionIQ": Shape(1000, 5992, 11, 0),
    "Wiki-SS-NQ": Shape(1000, 1000, 9, 0),
    "OVEN": Shape(1000, 1000, 8, 90),
    "EDIS": Shape(1000, 1000, 20, 20),
    "MSCOCO": Shape(1000, 1000, 1.2, 0),
    "RefCOCO": Shape(1000, 1000, 4, 0),
    "RefCOCO-Matching": Shape(1000, 1000, 4, 4),
    "Visual7W-Pointing": Shape(1000, 1000, 7, 0),
}
_SPREAD = 0.35  # of the logarithm of a text's length

# Pixels of a task's images where they are not photographs of everyday scenes: pages, crops, shop pictures.
_PAGES = ((1700, 2200), (1275, 1650), (1600, 1200))
_CROPS = ((180, 240), (320, 200), (90, 120), (250, 250))
_PHOTOGRAPHS = ((640, 480), (480, 640), (640, 427), (500, 375), (1024, 683))
_SIZES = {"DocVQA": _PAGES, "InfographicsVQA": ((800, 2400), (1000, 3000)), "Wiki-SS-NQ": ((980, 980),)}


def write_suite(folder: Path, *, rows: int = ROWS, most: int = 10_000) -> int:
    """All 36 tasks with `rows` queries and at most `most` distinct candidates each, as MMEB-eval lays them out.

    Images are headers without pixels. Returns the number of distinct items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    sizes: dict[str, tuple[int, int]] = {}
    items = 0
    for task in TASKS:
        shape = SHAPES[task.name]
        corpus = min(shape.corpus, most)
        queries = _side(rng, task, "query", rows, sizes)
        candidates = _side(rng, task, "candidate", corpus, sizes)
        items += len(set(zip(*queries, strict=True))) + len(set(zip(*candidates, strict=True)))
        _write_rows(rng, folder / task.name, queries, candidates, min(shape.width, corpus))
    write_headers(folder / "images.zip", sizes)
    return items


def _side(
    rng: np.random.Generator, task: Task, side: str, count: int, sizes: dict[str, tuple[int, int]]
) -> tuple[list[str], list[str]]:
    """Distinct prompts and image paths of queries or candidates; the sizes of the images are noted in `sizes`."""
    modality, words, prompt = (
        (task.query, SHAPES[task.name].query_words, task.query_prompt)
        if side == "query"
        else (task.target, SHAPES[task.name].candidate_words, task.target_prompt)
    )
    texts = [""] * count if modality is Modality.IMAGE else _texts(rng, words, count)
    paths = [f"{task.name}/{side}{number:05d}.png" if modality.has_image else "" for number in range(count)]
    kinds = _CROPS if task.meta_task == "grounding" and side == "candidate" else _SIZES.get(task.name, _PHOTOGRAPHS)
    sizes.update({path: kinds[number % len(kinds)] for number, path in enumerate(paths) if path})
    return [str(prompt(text)) for text in texts], paths


def _texts(rng: np.random.Generator, words: float, count: int) -> list[str]:
    """Distinct texts; a number at the end tells apart those that are too short to differ."""
    lengths = np.maximum(1, np.rint(rng.lognormal(np.log(words), _SPREAD, count))).astype(int)
    words_known = _WORDS.split()
    made = [" ".join(rng.choice(words_known, length)) for length in lengths]
    seen: set[str] = set()
    for number, text in enumerate(made):
        if text in seen:
            made[number] = f"{text} {number}"
        seen.add(made[number])
    return made


def _write_rows(
    rng: np.random.Generator,
    folder: Path,
    queries: tuple[list[str], list[str]],
    candidates: tuple[list[str], list[str]],
    width: int,
) -> None:
    """A parquet file whose rows draw `width` candidates each; the first is the right one."""
    rows, corpus = len(queries[0]), len(candidates[0])
    ids: NDArray[np.int64] = np.concatenate([rng.permutation(corpus)[:width] for _ in range(rows)])
    offsets = pa.array(np.arange(0, len(ids) + 1, width), pa.int32())
    columns = {"qry_text": pa.array(queries[0]), "qry_img_path": pa.array(queries[1])}
    for name, values in zip(("tgt_text", "tgt_img_path"), candidates, strict=True):
        codes = pa.DictionaryArray.from_arrays(pa.array(ids, pa.int32()), pa.array(values))
        columns[name] = pa.ListArray.from_arrays(offsets, codes)
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "test-00000-of-00001.parquet")
