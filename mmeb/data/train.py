"""MMEB-train's rows as pairs of Items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from mmeb.data.images import ImageRef
from mmeb.data.item import Item, Role
from mmeb.data.stores import ImageStore
from mmeb.errors import MmebError
from mmeb.tasks import TASKS, Prompt, Task

SPLITS = ("original", "diverse_instruction")
TRAIN_SUBSETS = tuple(task.train_subset for task in TASKS if task.train_subset is not None)

_COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")
_FOLDERS = ("MMEB-train", ".")


@dataclass(frozen=True)
class TrainPair:
    """A query, the candidate that answers it, and candidates that don't (none where the row has none)."""

    query: Item
    positive: Item
    negatives: tuple[Item, ...] = ()


def load_train(
    subset: str, folder: Path, *, split: str = "original", limit: int | None = None, seed: int = 0
) -> list[TrainPair]:
    """Read one of MMEB-train's 20 subsets from a folder that holds it, or holds `MMEB-train/`.

    Images stay where they are, in `images_zip/*.zip` or unpacked in `images/`. `limit` takes that many rows by chance,
    the same ones for the same seed, in the order of the data; MMEB-train's rows are not shuffled. Raises MmebError for
    a name that is none of the 20, a missing file, column or image, and a row without query or positive.
    """
    task = _task(subset)
    if split not in SPLITS:
        raise MmebError(f"There is no split {split!r}: MMEB-train has {' and '.join(SPLITS)}.")
    root = _root(folder, subset)
    files = sorted((root / subset).glob(f"{split}-*.parquet"))
    if not files:
        raise MmebError(f"{root / subset} has no {split}-*.parquet: download this split of {subset}.")
    rows = _read(files, subset)
    numbers = list(range(len(rows)))
    if limit is not None and limit < len(rows):
        numbers = sorted(Random(f"{seed}/{subset}").sample(numbers, limit))
    store = _images(root, subset)
    return [_pair(rows[number], f"{subset}, row {number}", task, store) for number in numbers]


def _task(subset: str) -> Task:
    for task in TASKS:
        if task.train_subset == subset:
            return task
    raise MmebError(f"{subset!r} is not one of MMEB-train's 20 subsets: {', '.join(TRAIN_SUBSETS)}.")


def _root(folder: Path, subset: str) -> Path:
    for name in _FOLDERS:
        if (folder / name / subset).is_dir():
            return folder / name
    raise MmebError(f"{folder} has no training rows of {subset}: expected {subset}/original-*.parquet in it.")


def _read(files: Sequence[Path], subset: str) -> list[dict[str, str | None]]:
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise MmebError(f"{subset}: its rows in {files[0].parent} can't be read: {error}") from None
    if missing := [name for name in _COLUMNS[:4] if name not in table.column_names]:
        raise MmebError(f"{subset}: {files[0]} has no column {missing[0]!r}.")
    rows: list[dict[str, str | None]] = table.to_pylist()
    return rows


def _images(root: Path, subset: str) -> ImageStore:
    folders = [folder for folder in (root, root / "images") if folder.is_dir()]
    archive = root / "images_zip" / f"{subset}.zip"
    return ImageStore(folders, [archive] if archive.is_file() else [])


def _pair(row: dict[str, str | None], origin: str, task: Task, store: ImageStore) -> TrainPair:
    query, positive, negative = (
        _side(row, text, path, origin, store) for text, path in zip(_COLUMNS[::2], _COLUMNS[1::2], strict=True)
    )
    if query is None or positive is None:
        raise MmebError(f"{origin}: there is no {'query' if query is None else 'positive'}.")
    instructions = (task.query_instruction, task.target_instruction)
    return TrainPair(
        _item(*query, instructions[0], Role.QUERY),
        _item(*positive, instructions[1], Role.CANDIDATE),
        (_item(*negative, instructions[1], Role.CANDIDATE),) if negative else (),
    )


def _side(
    row: dict[str, str | None], text: str, path: str, origin: str, store: ImageStore
) -> tuple[str, ImageRef | None] | None:
    """A row's text and image; None where it has neither."""
    prompt, place = row.get(text) or "", row.get(path) or ""
    if not prompt and not place:
        return None
    image = store.find(place, origin) if place else None
    if place and image is None:
        raise MmebError(f"{origin}: its image {place} is missing; download the images of its subset.")
    return prompt, image


def _item(prompt: str, image: ImageRef | None, instruction: str, role: Role) -> Item:
    return Item.from_prompt(Prompt.parse(prompt, instruction), image, role)
