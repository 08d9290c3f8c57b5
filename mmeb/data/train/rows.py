"""Training rows in columns: a million of them open in seconds, and no object is made of one before it is asked for.

The columns are MMEB-train's. A cell of the user's own data may hold a list where a row has several positives or
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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmeb.data.rows import read_table
from mmeb.errors import MmebError

COLUMNS = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")

Numbers = NDArray[np.int64]


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
        return Cells(_starts(counts), self.texts.take(positions), self.paths.take(positions))


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
        """(n_rows,), equal where the first positives are equal in text and image path; all rows are to have one."""
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
    tables = [read_table(file) for file in files]
    for file, table in zip(files, tables, strict=True):
        _check_columns(table.column_names, file, name)
    try:
        query, positive, negative = (
            _joined([_cells(table, *columns, name) for table in tables])
            for columns in zip(COLUMNS[::2], COLUMNS[1::2], strict=True)
        )
    except (pa.ArrowException, TypeError) as error:
        raise MmebError(f"{name}: {files[0]} does not hold strings, or lists of them: {error}") from None
    rows = TrainRows(query, positive, negative, np.arange(sum(map(len, tables))))
    if not len(rows):
        raise MmebError(f"{name}: {files[0]} has no rows.")
    if several := np.flatnonzero(rows.query.counts > 1).tolist():
        raise MmebError(f"{name}, row {several[0]}: a row has one query, not {rows.query.counts[several[0]]}.")
    return rows


def _check_columns(columns: Sequence[str], file: Path, name: str) -> None:
    for text, path in (COLUMNS[:2], COLUMNS[2:4]):
        if text not in columns and path not in columns:
            raise MmebError(f"{name}: {file} has no column {text!r}; the columns are {', '.join(COLUMNS)}.")
    # A column of another name may hold anything, but not what looks like a misspelt one: it would be left out unseen.
    for column in columns:
        if column not in COLUMNS and column.lower().startswith(("qry", "query", "pos", "neg")):
            raise MmebError(f"{name}: {file} has a column {column!r}, which is none of {', '.join(COLUMNS)}.")


def within(counts: Numbers) -> Numbers:
    """0, 1, … up to each count, one after another: [2, 3] is [0, 1, 0, 1, 2]."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)


def _starts(counts: Numbers) -> Numbers:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _cells(table: Any, text: str, path: str, name: str) -> Cells:
    texts, text_counts = _flat(table, text)
    paths, path_counts = _flat(table, path)
    counts = np.maximum(text_counts, path_counts)
    unequal = (text_counts != path_counts) & (np.minimum(text_counts, path_counts) > 1)
    if unequal.any():
        row = int(np.argmax(unequal))
        raise MmebError(
            f"{name}, row {row}: {text} lists {text_counts[row]}, but {path} {path_counts[row]}; the two lists are to "
            "be of one length."
        )
    step = within(counts)
    texts, paths = (_spread(column, own, counts, step) for column, own in ((texts, text_counts), (paths, path_counts)))
    filled = pc.or_(pc.not_equal(texts, ""), pc.not_equal(paths, "")).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(counts)), counts)
    return Cells(_starts(np.bincount(rows[filled], minlength=len(counts))), texts.filter(filled), paths.filter(filled))


def _flat(table: Any, column: str) -> tuple[Any, Numbers]:
    """All elements of a column of strings or lists of strings, and each row's number of them."""
    if column not in table.column_names:
        return pa.array([], pa.large_string()), np.zeros(len(table), np.int64)
    cells = table[column].combine_chunks()
    if isinstance(cells, pa.ChunkedArray):  # what combining leaves of a column without chunks
        cells = pa.array([], cells.type)
    counts = np.ones(len(cells), np.int64)
    if hasattr(cells, "flatten") and pa.types.is_nested(cells.type):
        counts = pc.list_value_length(cells).fill_null(0).to_numpy().astype(np.int64)
        cells = cells.flatten()
    return cells.cast(pa.large_string()).fill_null(""), counts


def _spread(column: Any, own: Numbers, counts: Numbers, step: Numbers) -> Any:
    """A row's elements up to its count: a lone one repeated, none as empty strings."""
    if np.array_equal(own, counts):
        return column
    starts, single = np.repeat(_starts(own)[:-1], counts), np.repeat(own == 1, counts)
    positions = np.where(single, starts, starts + step)
    return column.take(pa.array(positions, mask=np.repeat(own == 0, counts))).fill_null("")


def _joined(parts: Sequence[Cells]) -> Cells:
    counts = np.concatenate([part.counts for part in parts])
    texts, paths = (pa.concat_arrays([getattr(part, name) for part in parts]) for name in ("texts", "paths"))
    return Cells(_starts(counts), texts, paths)


def _content(column: Any) -> memoryview | bytes:
    """The bytes of all strings of a column, one after another."""
    _, offsets, content = column.buffers()
    if content is None or not len(column):
        return b""
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    return memoryview(content)[ends[0] : ends[-1]]
