"""The per-query ranks that travel with a submission: one compact file beside it, for all its tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.files import replacing, to_text
from mmeb.results.ranks import read_ranks
from mmeb.results.store import RESULTS_FILE

MAX_ROWS = 1_000_000
"""36 tasks of 1000 queries are 36,000 rows; a file of far more is refused before it is read."""

_SUFFIX = ".ranks.parquet"
_COLUMNS = ("rank", "predicted", "tied")


@dataclass(frozen=True)
class QueryRanks:
    """What a submission says of each query of a task, in data order, arrays (n_rows,): see `mmeb.results.ranks`."""

    rank: NDArray[np.int32]
    predicted: NDArray[np.int32]
    tied: NDArray[np.int32]


def ranks_path(submission: Path) -> Path:
    """Where the ranks of a submission `<model>.json` lie: `<model>.ranks.parquet`."""
    return submission.with_name(submission.name.removesuffix(".json") + _SUFFIX)


def load_ranks(path: Path) -> dict[str, QueryRanks]:
    """The ranks by task of a run folder, of its `results.json`, of one task in it, or of a submission.

    Empty where there are none. Raises MmebError for a file that can't be read.
    """
    folder = path if path.is_dir() else path.parent if path.name == RESULTS_FILE else None
    if folder is not None:
        return {file.name.removesuffix(_SUFFIX): _of_a_run(file) for file in sorted(folder.glob(f"*{_SUFFIX}"))}
    return _read(ranks_path(path)) if ranks_path(path).is_file() else {}


def write_submission(path: Path, content: Mapping[str, Any], ranks: Mapping[str, QueryRanks]) -> None:
    """Write a result file and, beside it, its ranks if there are any: both, or neither where one can't be written."""
    with replacing(path) as aside:
        aside.write_text(to_text(content), encoding="utf-8")
        if ranks:
            write_submission_ranks(ranks_path(path), ranks)
        else:
            ranks_path(path).unlink(missing_ok=True)


def write_submission_ranks(path: Path, ranks: Mapping[str, QueryRanks]) -> None:
    """Write columns `task`, `rank`, `predicted`, `tied`, one row per query, task after task in data order."""
    names = np.repeat(list(ranks), [len(task.rank) for task in ranks.values()])
    columns = {
        name: np.concatenate([getattr(task, name) for task in ranks.values()]).astype(np.int32) for name in _COLUMNS
    }
    table = pa.table({"task": pa.array(names).dictionary_encode(), **columns})
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd", compression_level=19)


def _of_a_run(path: Path) -> QueryRanks:
    ranks = read_ranks(path)
    return QueryRanks(ranks.rank, ranks.predicted, ranks.tied)


def _read(path: Path) -> dict[str, QueryRanks]:
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > MAX_ROWS:
            raise MmebError(f"{path} has {file.metadata.num_rows} rows, at most {MAX_ROWS} are expected: not read.")
        if "task" not in file.schema_arrow.names:
            return {path.name.removesuffix(_SUFFIX): _of_a_run(path)}
        table = file.read(columns=["task", *_COLUMNS])
        if table.num_rows == 0 or any(table[name].null_count for name in table.column_names):
            raise MmebError(f"{path} can't be read as per-query ranks: it has no rows, or rows with gaps.")
        tasks = table["task"].cast(pa.string()).combine_chunks().dictionary_encode()
        columns = [table[name].cast(pa.int32()).to_numpy() for name in _COLUMNS]
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise MmebError(f"{path} can't be read as per-query ranks: {str(error).splitlines()[0]}.") from None
    codes = tasks.indices.to_numpy()
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))
    return {
        str(name): QueryRanks(*(column[rows] for column in columns))
        for name, rows in zip(tasks.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True)
    }
