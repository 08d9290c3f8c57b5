"""The rows of one subset, read and checked: which prompt and image path each query and candidate has.

Two column layouts are known: MMEB-eval's, whose strings hold the instruction, and MMEB_Test_Instruct's, which keeps it
apart. A subset has up to a million candidates but few distinct strings, so everything here is codes into lists.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmeb.data.columns import Columns, Numbers, join, read_columns, spread
from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER, Prompt, Task, instruct

Codes = NDArray[np.int32]

_COLUMNS = ("qry_inst", "qry_text", "qry_img_path", "tgt_inst", "tgt_text", "tgt_img_path")


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

    def pairs(self) -> Codes:
        """(n,), equal where prompt and path are."""
        return factorize(self.prompt_codes.astype(np.int64) * len(self.paths) + self.path_codes)[0]


@dataclass(frozen=True)
class Rows:
    """A subset's rows in order. `lengths` (n_rows,) is the number of candidates of each; the first is the right one."""

    query: Side
    candidate: Side
    lengths: Numbers

    def image_paths(self) -> list[str]:
        """The paths that the rows name, each once, sorted."""
        sides = (self.query, self.candidate)
        return sorted({side.paths[code] for side in sides for code in np.unique(side.path_codes)} - {""})

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
    tables = [read_columns(path, _COLUMNS) for path in files]
    columns = tables[0].cells.keys()
    if any(table.cells.keys() != columns for table in tables):
        raise MmebError(f"{task.name}: {files[0]} and the files beside it have different columns.")
    if not sum(table.n_rows for table in tables):
        raise MmebError(f"{task.name}: {files[0]} has no rows.")
    if missing := {"qry_text", "tgt_text"} - columns:
        raise MmebError(f"{task.name}: {files[0]} has no column {' and no column '.join(sorted(missing))}.")
    query_text, query_path = (_one_each(tables, name, task) for name in ("qry_text", "qry_img_path"))
    texts, paths = join(tables, "tgt_text"), join(tables, "tgt_img_path")
    _check_lengths(task, texts[1], paths[1])
    lengths = np.maximum(texts[1], paths[1])
    target_text, target_path = encode(spread(texts, lengths)), encode(spread(paths, lengths))
    if "qry_inst" in columns:
        query_inst, target_inst = (_one_each(tables, name, task) for name in ("qry_inst", "tgt_inst"))
        query = _instruct_queries(task, query_inst, query_text, query_path)
        candidate = _instruct_candidates(task, target_inst, target_text, target_path, lengths)
    else:
        prompts = [Prompt.parse(text, task.query_instruction) for text in query_text.values]
        query = _side(prompts, query_text, query_path)
        prompts = [Prompt.parse(text, task.target_instruction) for text in target_text.values]
        candidate = _side(prompts, target_text, target_path)
    _check_queries(task, query)
    return Rows(query, candidate, lengths)


def factorize(codes: NDArray[Any]) -> tuple[Codes, NDArray[Any]]:
    """Number values in the order in which they first appear: (numbers, the distinct values)."""
    numbers, distinct = pd.factorize(codes)
    return numbers.astype(np.int32), np.asarray(distinct)


def encode(words: Any) -> Strings:
    """An arrow array of strings as codes into its distinct values."""
    encoded = words.dictionary_encode()
    return Strings(encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int32))


def _one_each(tables: Sequence[Columns], name: str, task: Task) -> Strings:
    """A column that holds one string a row; where it is missing or null, the empty string."""
    words, counts = join(tables, name)
    several = np.flatnonzero(counts > 1)
    if len(several):
        raise MmebError(f"{task.name}, row {several[0]}: {name} lists {counts[several[0]]} strings instead of one.")
    return encode(spread((words, counts), np.ones_like(counts)))


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


def _instruct_candidates(task: Task, instruction: Strings, text: Strings, paths: Strings, lengths: Numbers) -> Side:
    has_caption = np.array([bool(value.strip()) for value in text.values])[text.codes[np.cumsum(lengths) - lengths]]
    rows = instruction.codes.astype(np.int64) * 2 + has_caption  # what a row's candidates have in common
    codes, distinct = factorize(np.repeat(rows, lengths) * len(text.values) + text.codes)
    prompts = []
    for key in distinct:
        row, second = divmod(int(key), len(text.values))
        prompts.append(instruct.target_prompt(task, instruction.values[row // 2], text.values[second], bool(row % 2)))
    return _side(prompts, Strings([], codes), paths)


def _check_lengths(task: Task, texts: Numbers, paths: Numbers) -> None:
    unequal = np.flatnonzero((texts != paths) & (texts > 0) & (paths > 0))
    if len(unequal):
        row = unequal[0]
        raise MmebError(
            f"{task.name}, row {row}: {texts[row]} candidate texts, but {paths[row]} candidate images; the lists must "
            f"be of one length ({len(unequal)} such rows)."
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
