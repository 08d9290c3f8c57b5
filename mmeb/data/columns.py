"""Columns of strings, or of lists of strings, from parquet and JSONL files: only those that are needed, one by one.

A list column is its elements one after another and each row's number of them; a lone string is a list of one, an empty
string or null of none.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb.errors import MmebError

Numbers = NDArray[np.int64]
Elements = tuple[Any, Numbers]  # pyarrow.LargeStringArray (n_elements,), and (n_rows,) how many each row has

_NONE = pa.array([], pa.large_string())


@dataclass(frozen=True)
class Columns:
    """What was read of a file. `names` are all of its columns, `cells` those that were asked for and are there."""

    path: Path
    names: tuple[str, ...]
    n_rows: int
    cells: Mapping[str, Elements]


def read_columns(path: Path, names: Collection[str]) -> Columns:
    """Read these columns of a file, as far as it has them.

    Raises MmebError for a file that is missing, cut off or none, and for a column that holds something else.
    """
    try:
        if path.suffix == ".jsonl":
            return _read_jsonl(path, names)
        with pq.ParquetFile(path) as file:
            leaves = [file.schema.column(number) for number in range(len(file.schema))]
            there, n_rows = file.schema_arrow.names, file.metadata.num_rows
        # Strings that repeat are kept once and read as codes, which is twenty times faster.
        strings = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        cells = {}
        for name in (name for name in names if name in there):
            column = pq.read_table(path, columns=[name], read_dictionary=strings).column(0)
            cells[name] = _flat(column.chunks, path, name)
        return Columns(path, tuple(there), n_rows, cells)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MmebError(f"The rows in {path} can't be read, the file is cut off or damaged: {error}") from error


def join(files: Sequence[Columns], name: str) -> Elements:
    """A column of several files as one; rows of files that lack it have none."""
    return _concatenated([file.cells.get(name, (_NONE, np.zeros(file.n_rows, np.int64))) for file in files])


def spread(cells: Elements, counts: Numbers) -> Any:
    """A row's elements up to another count: a lone one repeated, none as empty strings."""
    elements, lengths = cells
    if np.array_equal(lengths, counts):
        return elements
    starts, single = np.repeat(starts_of(lengths)[:-1], counts), np.repeat(lengths == 1, counts)
    positions = np.where(single, starts, starts + within(counts))
    return elements.take(pa.array(positions, mask=np.repeat(lengths == 0, counts))).fill_null("")


def starts_of(counts: Numbers) -> Numbers:
    """(n + 1,), where each row's elements begin, and the end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def within(counts: Numbers) -> Numbers:
    """0, 1, … up to each count, one after another: [2, 3] is [0, 1, 0, 1, 2]."""
    ends = np.cumsum(counts)
    return np.arange(int(counts.sum())) - np.repeat(ends - counts, counts)


def _flat(chunks: Iterable[pa.Array], path: Path, name: str) -> Elements:
    parts = []
    try:
        for chunk in chunks:
            if pa.types.is_nested(chunk.type):
                counts = pc.list_value_length(chunk).fill_null(0).to_numpy().astype(np.int64)
                parts.append((chunk.flatten().cast(pa.large_string()).fill_null(""), counts))
            else:
                words = chunk.cast(pa.large_string()).fill_null("")
                filled = pc.not_equal(words, "")
                counts = filled.to_numpy(zero_copy_only=False).astype(np.int64)
                parts.append((words if counts.all() else words.filter(filled), counts))
    except pa.ArrowException as error:
        raise MmebError(f"{path}: the column {name} does not hold strings, or lists of them: {error}") from None
    return _concatenated(parts)


def _concatenated(parts: Sequence[Elements]) -> Elements:
    if len(parts) == 1:
        return parts[0]  # a copy would double the memory
    elements = pa.concat_arrays([_NONE, *(elements for elements, _ in parts)])
    return elements, np.concatenate([np.zeros(0, np.int64), *(counts for _, counts in parts)])


def _read_jsonl(path: Path, names: Collection[str]) -> Columns:
    with path.open(encoding="utf-8-sig") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    there = dict.fromkeys(name for row in rows for name in row)
    cells = {}
    for name in [name for name in names if name in there]:
        lists = []
        for number, row in enumerate(rows):
            value = row.get(name)
            lists.append(value if isinstance(value, list) else [value] if value not in (None, "") else [])
            if not all(isinstance(word, str | None) for word in lists[-1]):
                raise MmebError(f"{path}, row {number}: the column {name} does not hold strings, or lists of them.")
        cells[name] = _flat([pa.array(lists, pa.list_(pa.large_string()))], path, name)
    return Columns(path, tuple(there), len(rows), cells)
