"""Training data as pairs of Items, made when they are asked for."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import overload

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmeb.data.images.image import MissingImage
from mmeb.data.images.store import ImageStore
from mmeb.data.item import Item, Role
from mmeb.data.part import DataSource, Part, Source
from mmeb.data.train.rows import TrainRows, read_train_rows
from mmeb.data.train.subsets import check_split, open_train_sources, select_subsets
from mmeb.errors import MmebError
from mmeb.tasks import Prompt
from mmeb.tasks.train_subsets import SPLITS, TRAIN_SUBSETS, instructions

__all__ = ["SPLITS", "TRAIN_SUBSETS", "TrainPair", "TrainSubset", "open_train"]


@dataclass(frozen=True)
class TrainPair:
    """A query, the candidates that answer it (mostly one), and candidates that don't (none where the row has none)."""

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Item, ...] = ()


@dataclass(frozen=True, eq=False)
class TrainSubset(Sequence[TrainPair]):
    """The pairs of one subset. It holds columns of strings, and is cheap to fork and to pickle.

    `rows` are those that the cap left. `skipped` counts rows without query or positive that were left out. An image
    that is missing or broken raises MmebError, naming subset, row and file, when it is read.
    """

    name: str
    rows: TrainRows
    images: ImageStore
    source: DataSource
    instructions: tuple[str, str] = ("", "")  # of queries and of targets
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, row: int) -> TrainPair: ...
    @overload
    def __getitem__(self, row: slice) -> list[TrainPair]: ...
    def __getitem__(self, row: int | slice) -> TrainPair | list[TrainPair]:
        if isinstance(row, slice):
            return [self[position] for position in range(*row.indices(len(self)))]
        row = range(len(self))[operator.index(row)]
        origin = self.origin(row)
        ((text, path),) = self.rows.query.row(row)
        return TrainPair(
            self._item(text, path, Role.QUERY, origin),
            tuple(self._item(text, path, Role.CANDIDATE, origin) for text, path in self.rows.positive.row(row)),
            tuple(self._item(text, path, Role.CANDIDATE, origin) for text, path in self.rows.negative.row(row)),
        )

    def _item(self, text: str, path: str, role: Role, origin: str) -> Item:
        image = self.images.find(path, origin) if path else None
        try:
            return Item.from_prompt(Prompt.parse(text, self.instructions[role is Role.CANDIDATE]), image, role)
        except MmebError as error:
            raise MmebError(f"{origin}: {error}") from None

    def origin(self, row: int) -> str:
        """What to call a row in a message, by its number in the data: `A-OKVQA, row 17`."""
        return f"{self.name}, row {self.rows.numbers[row]}"

    @property
    def target_ids(self) -> NDArray[np.int64]:
        """(n_rows,), equal where the first positives are equal in text and image path."""
        return self.rows.target_ids

    @property
    def fingerprint(self) -> str:
        """A hash over the rows' content, cap included."""
        return self.rows.fingerprint


def open_train(
    data: str | Path,
    subsets: Sequence[str] = ("all",),
    *,
    split: str = "original",
    limit: int | None = None,
    seed: int = 0,
    revision: str | None = None,
    offline: bool = False,
    skip_bad_rows: bool = False,
) -> list[TrainSubset]:
    """Open training data: `hub`, `demo`, a folder that holds MMEB-train, custom files, or several by commas.

    `subsets` are names, or `all` of those that the data has. `limit` takes a random sample of so many rows of a subset,
    the same for the same seed, in the order of the data; MMEB-train's rows are not shuffled. Images stay where they
    are and are looked for when a pair is asked for.

    Raises MmebError for a name that is no training subset, a split, file or column that is missing, images of which
    there is no trace, and, unless `skip_bad_rows`, for a row without query or positive.
    """
    check_split(split)
    selected = select_subsets(subsets, open_train_sources(data, revision=revision, offline=offline))
    parts = {Part.of_subset(name, split): source for name, source in selected.items()}
    for source in dict.fromkeys(parts.values()):
        source.fetch([part for part, other in parts.items() if other is source])
    return [_open(part, source, limit, seed, skip_bad_rows) for part, source in parts.items()]


def _open(part: Part, source: Source, limit: int | None, seed: int, skip_bad_rows: bool) -> TrainSubset:
    name = part.name
    rows = read_train_rows(source.row_files(part), name)
    kept = _valid_rows(rows, name, skip_bad_rows)
    skipped = len(rows) - len(kept)
    if limit is not None and limit < len(kept):
        kept = kept[sorted(Random(f"{seed}/{name}").sample(range(len(kept)), limit))]
    if len(kept) < len(rows):
        rows = rows.take(kept)
    images = source.images(part)
    _check_images(rows, images, name)
    return TrainSubset(name, rows, images, source.describe(), instructions(name), skipped)


def _valid_rows(rows: TrainRows, name: str, skip_bad_rows: bool) -> NDArray[np.int64]:
    """The positions of the rows that have a query and a positive."""
    has = {"query": rows.query.counts > 0, "positive": rows.positive.counts > 0}
    valid = has["query"] & has["positive"]
    if not valid.any() or not (valid.all() or skip_bad_rows):
        row = int(np.argmin(valid))
        lacks = next(side for side, there in has.items() if not there[row])
        raise MmebError(
            f"{name}, row {row}: there is no {lacks} ({int((~valid).sum())} of {len(valid)} rows lack a query or a "
            "positive): fix the rows, or leave them out with --skip-bad-rows."
        )
    return np.flatnonzero(valid)


def _check_images(rows: TrainRows, images: ImageStore, name: str) -> None:
    """Raise MmebError where the first image is missing, which finds images that were not downloaded at all.

    An archive is not opened for it.
    """
    if images.archives:
        return
    for side in (rows.query, rows.positive):
        position = pc.index(pc.not_equal(side.paths, ""), True).as_py()
        if position >= 0:
            row = rows.numbers[np.searchsorted(side.starts, position, side="right") - 1]
            image = images.find(side.paths[position].as_py(), f"{name}, row {row}")
            if isinstance(image, MissingImage):
                raise MmebError(f"{image}.")
            return
