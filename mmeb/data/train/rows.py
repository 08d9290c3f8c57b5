"""Training rows in columns: a million of them open in seconds, and no object is made of one before it is asked for.

The columns are MMEB-train's. A cell of custom data may hold a list where a row has several positives or
negatives; the lists of texts and images run side by side, and a lone one goes with each of the other. An empty string
stands for none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from mmeb.data.columns import Columns, Numbers, join, read_columns, spread, starts_of, within
from mmeb.errors import MmebError

COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")


@dataclass(frozen=True, eq=False)
class Cells:
    """One side of all rows: row i has the texts and image paths from `starts[i]` up to `starts[i + 1]`."""

    starts: Numbers  # (n_rows + 1,)
    texts: Any  # pyarrow.LargeStringArray
    paths: Any

    @property
    def counts(self) -> Numbers:
        """(n_rows,), how many each row has."""
        return np.diff(self.starts)

    def row(self, row: int) -> list[tuple[str, str]]:
        """The texts with the image paths of one row."""
        span = range(self.starts[row], self.starts[row + 1])
        return [(self.texts[position].as_py(), self.paths[position].as_py()) for position in span]

    def take(self, rows: Numbers) -> "Cells":
        counts = self.counts[rows]
        positions = np.repeat(self.starts[rows], counts) + within(counts)
        return Cells(starts_of(counts), self.texts.take(positions), self.paths.take(positions))


@dataclass(frozen=True, eq=False)
class TrainRows:
    """The rows of one subset. `numbers` (n_rows,) are those of the data, counted from 0, for messages."""

    query: Cells
    positive: Cells
    negative: Cells
    numbers: Numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Numbers) -> "TrainRows":
        return TrainRows(self.query.take(rows), self.positive.take(rows), self.negative.take(rows), self.numbers[rows])

    @cached_property
    def target_ids(self) -> Numbers:
        """(n_rows,), equal where the first positives are equal in text and image path; all rows must have one."""
        first = self.positive.starts[:-1]
        texts, paths = (
            column.take(first).dictionary_encode().indices.to_numpy().astype(np.int64)
            for column in (self.positive.texts, self.positive.paths)
        )
        ids: Numbers = pd.factorize(texts * (paths.max(initial=0) + 1) + paths)[0].astype(np.int64)
        return ids

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the rows' content, the same wherever and in whatever files they lie."""
        digest = hashlib.sha256()
        for side in (self.query, self.positive, self.negative):
            digest.update(side.counts.astype("<i8").tobytes())
            for column in (side.texts, side.paths):
                digest.update(pc.binary_length(column).to_numpy().astype("<i8").tobytes())
                digest.update(_content(column))
        return digest.hexdigest()


def read_train_rows(files: Sequence[Path], name: str) -> TrainRows:
    """Read a subset's rows from parquet or JSONL files, shards in order.

    Raises MmebError, naming subset and row, for a file that can't be read, a column that is missing, misspelt or holds
    no strings, and lists of texts and images of different length. Columns that stay empty may be missing.
    """
    read = [read_columns(file, COLUMNS) for file in files]
    for file in read:
        _check_columns(file, name)
    query, positive, negative = (
        _side(read, text, path, name) for text, path in zip(COLUMNS[::2], COLUMNS[1::2], strict=True)
    )
    rows = TrainRows(query, positive, negative, np.arange(sum(file.n_rows for file in read)))
    if not len(rows):
        raise MmebError(f"{name}: {files[0]} has no rows.")
    if several := np.flatnonzero(rows.query.counts > 1).tolist():
        raise MmebError(f"{name}, row {several[0]}: a row has one query, not {rows.query.counts[several[0]]}.")
    return rows


def _check_columns(file: Columns, name: str) -> None:
    for text, path in (COLUMNS[:2], COLUMNS[2:4]):
        if text not in file.names and path not in file.names:
            raise MmebError(f"{name}: {file.path} has no column {text!r}; the columns are {', '.join(COLUMNS)}.")
    # A column of another name may hold anything, but not what looks like a misspelt one: it would be left out unseen.
    for column in file.names:
        if column not in COLUMNS and column.lower().startswith(("qry", "query", "pos", "neg")):
            raise MmebError(f"{name}: {file.path} has a column {column!r}, which is none of {', '.join(COLUMNS)}.")


def _side(files: Sequence[Columns], text: str, path: str, name: str) -> Cells:
    texts, paths = join(files, text), join(files, path)
    counts = np.maximum(texts[1], paths[1])
    unequal = (texts[1] != paths[1]) & (np.minimum(texts[1], paths[1]) > 1)
    if unequal.any():
        row = int(np.argmax(unequal))
        raise MmebError(
            f"{name}, row {row}: {text} lists {texts[1][row]}, but {path} {paths[1][row]}; both lists must be of one "
            "length."
        )
    all_texts, all_paths = spread(texts, counts), spread(paths, counts)
    filled = pc.or_(pc.not_equal(all_texts, ""), pc.not_equal(all_paths, "")).to_numpy(zero_copy_only=False)
    if filled.all():
        return Cells(starts_of(counts), all_texts, all_paths)
    rows = np.repeat(np.arange(len(counts)), counts)[filled]
    return Cells(
        starts_of(np.bincount(rows, minlength=len(counts))), all_texts.filter(filled), all_paths.filter(filled)
    )


def _content(column: Any) -> memoryview | bytes:
    """The bytes of all strings of a column, one after another."""
    _, offsets, content = column.buffers()
    if content is None or not len(column):
        return b""
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return memoryview(content)[ends[0] : ends[-1]]
