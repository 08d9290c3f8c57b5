"""The rows of one subset, read and checked: which prompt and image path each query and candidate has.

Two column layouts are known: MMEB-eval's, whose strings hold the instruction, and MMEB_Test_Instruct's, which keeps it
apart. A subset has up to a million candidates but few distinct strings, so everything here is codes into lists.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER, Prompt, Task, instruct

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Strings:
    """A column of strings: `values[codes]`."""

    values: list[str]
    codes: Codes


@dataclass(frozen=True)
class Side:
    """All queries, or all candidates of all rows one after another, by code into distinct prompts and image paths."""

    prompts: list[Prompt]
    prompt_codes: Codes  # (n,)
    paths: list[str]  # "" stands for no image
    path_codes: Codes  # (n,)

    def used_paths(self) -> list[str]:
        return [self.paths[code] for code in np.unique(self.path_codes)]

    def pairs(self) -> Codes:
        """(n,), equal where prompt and path are."""
        return factorize(self.prompt_codes.astype(np.int64) * len(self.paths) + self.path_codes)[0]


@dataclass(frozen=True)
class Rows:
    """A subset's rows in order. `lengths` (n_rows,) is the number of candidates of each; the first is the right one."""

    query: Side
    candidate: Side
    lengths: Codes

    def row_of(self, position: int) -> int:
        """The row that a candidate belongs to, by its position among all."""
        return int(np.searchsorted(self._ends, position, side="right"))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.lengths, dtype=np.int64)

    def as_matrix(self, values: Codes) -> Codes:
        """What is known of the candidates as (n_rows, width), with -1 behind a row's last."""
        matrix = np.full((len(self.lengths), int(self.lengths.max())), -1, np.int32)
        matrix[np.arange(matrix.shape[1]) < self.lengths[:, None]] = values
        return matrix


def read_rows(files: Sequence[Path], task: Task) -> Rows:
    """Read a task's rows from parquet or JSONL files.

    Raises MmebError, naming task and row, for a file that can't be read, a missing column, lists of different length,
    a row without candidates and an empty query.
    """
    tables = [read_table(path) for path in files]
    if len({frozenset(table.column_names) for table in tables}) > 1:
        raise MmebError(f"{task.name}: {files[0]} and the files beside it have different columns.")
    columns = {name: [chunk for table in tables for chunk in table[name].chunks] for name in tables[0].column_names}
    if not sum(table.num_rows for table in tables):
        raise MmebError(f"{task.name}: {files[0]} has no rows.")
    if missing := {"qry_text", "tgt_text"} - columns.keys():
        raise MmebError(f"{task.name}: {files[0]} has no column {' and no column '.join(sorted(missing))}.")
    n_rows = sum(table.num_rows for table in tables)
    absent = [pa.nulls(n_rows)]
    try:
        query_text, query_path = (_strings(columns.get(name, absent)) for name in ("qry_text", "qry_img_path"))
        texts, text_lengths = _lists(columns["tgt_text"])
        paths, path_lengths = _lists(columns.get("tgt_img_path", absent))
        _check_lengths(task, text_lengths, path_lengths)
        lengths = np.maximum(text_lengths, path_lengths)
        texts, paths = _spread(texts, text_lengths, lengths), _spread(paths, path_lengths, lengths)
        if "qry_inst" in columns:
            query = _instruct_queries(task, _strings(columns["qry_inst"]), query_text, query_path)
            target_inst = _strings(columns.get("tgt_inst", absent))
            candidate = _instruct_candidates(task, target_inst, texts, paths, lengths)
        else:
            query = _side(
                [Prompt.parse(text, task.query_instruction) for text in query_text.values], query_text, query_path
            )
            candidate = _side([Prompt.parse(text, task.target_instruction) for text in texts.values], texts, paths)
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise MmebError(f"{task.name}: {files[0]} does not hold strings and lists of strings: {error}") from error
    _check_queries(task, query)
    return Rows(query, candidate, lengths)


def factorize(codes: NDArray[Any]) -> tuple[Codes, NDArray[Any]]:
    """Number values in the order in which they first appear: (numbers, the distinct values)."""
    numbers, distinct = pd.factorize(codes)
    return numbers.astype(np.int32), np.asarray(distinct)


def read_table(path: Path) -> pa.Table:
    """The rows of a parquet or JSONL file, strings as codes. Raises MmebError for a file that can't be read."""
    try:
        if path.suffix == ".jsonl":
            return _read_jsonl(path)
        schema = pq.ParquetFile(path).schema
        leaves = [schema.column(index) for index in range(len(schema))]
        # Strings that repeat are kept once and read as codes, which is twenty times faster.
        return pq.read_table(path, read_dictionary=[leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MmebError(f"The rows in {path} can't be read, the file is cut off or damaged: {error}") from error


def _read_jsonl(path: Path) -> pa.Table:
    """JSONL as a table; where a column holds a list anywhere, a lone string or null becomes a list, too."""
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no JSON object")
    names = dict.fromkeys(name for row in rows for name in row)
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    for name, values in columns.items():
        if any(isinstance(value, list) for value in values):
            columns[name] = [value if isinstance(value, list) else [value] if value else [] for value in values]
    return pa.table(columns)


def _strings(chunks: Sequence[pa.Array]) -> Strings:
    """Codes of a column of strings; null is the empty string."""
    values: dict[str, int] = {}
    parts = [np.zeros(0, np.int32)]
    for chunk in chunks:
        if pa.types.is_null(chunk.type):
            chunk = chunk.cast(pa.string())
        if not pa.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_encode()
        words = [*chunk.dictionary.cast(pa.string()).to_pylist(), ""]
        known = np.array([values.setdefault(word or "", len(values)) for word in words], np.int32)
        parts.append(known[chunk.indices.fill_null(len(words) - 1).to_numpy()])
    return Strings(list(values), np.concatenate(parts))


def _lists(chunks: Sequence[pa.Array]) -> tuple[Strings, Codes]:
    """All elements of a column of lists, and each row's number of them; a lone string is a list of one, "" of none."""
    flat, lengths = [], [np.zeros(0, np.int32)]
    for chunk in chunks:
        if hasattr(chunk, "flatten") and pa.types.is_nested(chunk.type):
            flat.append(chunk.flatten())
            lengths.append(pc.list_value_length(chunk).fill_null(0).to_numpy())
        else:
            column = _strings([chunk])
            filled = np.array([word != "" for word in column.values])[column.codes]
            flat.append(pa.array(column.values, pa.string()).take(pa.array(column.codes[filled])))
            lengths.append(filled)
    return _strings(flat), np.concatenate(lengths).astype(np.int32)


def _spread(column: Strings, own: Codes, lengths: Codes) -> Strings:
    """Fill rows that have no elements with empty strings up to `lengths`."""
    if np.array_equal(own, lengths):
        return column
    codes = np.full(int(lengths.sum()), len(column.values), np.int32)
    codes[np.repeat(own > 0, lengths)] = column.codes
    return Strings([*column.values, ""], codes)


def _side(prompts: list[Prompt], text: Strings, paths: Strings) -> Side:
    """Prompts by the code of a text; equal ones get one code, and so do equal paths."""
    distinct = {prompt: code for code, prompt in enumerate(dict.fromkeys(prompts))}
    codes = np.array([distinct[prompt] for prompt in prompts], np.int32)[text.codes]
    places = {path: code for code, path in enumerate(dict.fromkeys(paths.values))}
    path_codes = np.array([places[path] for path in paths.values], np.int32)[paths.codes]
    return Side(list(distinct), codes, list(places), path_codes)


def _instruct_queries(task: Task, instruction: Strings, text: Strings, paths: Strings) -> Side:
    codes, distinct = factorize(instruction.codes.astype(np.int64) * len(text.values) + text.codes)
    pairs = (divmod(int(key), len(text.values)) for key in distinct)
    prompts = [instruct.query_prompt(task, instruction.values[first], text.values[second]) for first, second in pairs]
    return _side(prompts, Strings([], codes), paths)


def _instruct_candidates(task: Task, instruction: Strings, text: Strings, paths: Strings, lengths: Codes) -> Side:
    has_caption = np.array([bool(value.strip()) for value in text.values])[text.codes[np.cumsum(lengths) - lengths]]
    rows = instruction.codes.astype(np.int64) * 2 + has_caption  # what a row's candidates have in common
    codes, distinct = factorize(np.repeat(rows, lengths) * len(text.values) + text.codes)
    prompts = []
    for key in distinct:
        row, second = divmod(int(key), len(text.values))
        prompts.append(instruct.target_prompt(task, instruction.values[row // 2], text.values[second], bool(row % 2)))
    return _side(prompts, Strings([], codes), paths)


def _check_lengths(task: Task, texts: Codes, paths: Codes) -> None:
    unequal = np.flatnonzero((texts != paths) & (texts > 0) & (paths > 0))
    if len(unequal):
        row = unequal[0]
        raise MmebError(
            f"{task.name}, row {row}: {texts[row]} candidate texts, but {paths[row]} candidate images; the lists are "
            f"to be of one length ({len(unequal)} such rows)."
        )
    empty = np.flatnonzero((texts == 0) & (paths == 0))
    if len(empty):
        raise MmebError(f"{task.name}, row {empty[0]}: there are no candidates ({len(empty)} such rows).")


def _check_queries(task: Task, query: Side) -> None:
    blank_prompt = np.array([not str(prompt).replace(PLACEHOLDER, "").strip() for prompt in query.prompts])
    no_image = np.array([not path for path in query.paths])
    empty = np.flatnonzero(blank_prompt[query.prompt_codes] & no_image[query.path_codes])
    if len(empty):
        raise MmebError(f"{task.name}, row {empty[0]}: the query is empty, neither text nor image ({len(empty)} such).")
