"""Where the ground truth of each query stood, beside the scores, so that anyone can recompute and compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.files import replacing

CUTOFFS = (1, 5, 10)

MAX_ROWS = 1_000_000
"""36 tasks of 1000 queries are 36,000 rows; a file of far more is refused before it is read."""

RANKS_SUFFIX = ".ranks.parquet"

_SHARED = {"rank": np.int32, "predicted": np.int32, "tied": np.int32}  # columns of a run's file and of a submission's
_COLUMNS = {**_SHARED, "score": np.float32, "runner_up": np.float32}


@dataclass(frozen=True)
class Ranks:
    """The outcome of each query of a task, in data order; every array is (n_rows,).

    `rank` is 1 + the number of other distinct candidates that score at least as high as the ground truth: ties count
    against the model. `predicted` is the position of the best candidate in the row's own list, the first of equals.
    `tied` is the number of other distinct candidates that score exactly as the ground truth. `score` is the ground
    truth's, `runner_up` the best of the other distinct candidates', minus infinity where there is none; both are NaN
    in a submission, which does not carry them.
    """

    rank: NDArray[np.int32]
    predicted: NDArray[np.int32]
    tied: NDArray[np.int32]
    score: NDArray[np.float32]
    runner_up: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rank)

    @classmethod
    def empty(cls, n_rows: int) -> "Ranks":
        """Zeros, to be filled row by row."""
        return cls(**{name: np.zeros(n_rows, dtype=dtype) for name, dtype in _COLUMNS.items()})


def write_ranks(path: Path, ranks: Ranks) -> None:
    """Write the ranks of one task, one row per query, to a run's parquet file."""
    with replacing(path) as temporary:
        pq.write_table(pa.table(_arrays([ranks], _COLUMNS)), temporary, compression="zstd")


def write_submission_ranks(path: Path, ranks: Mapping[str, Ranks]) -> None:
    """Write columns `task`, `rank`, `predicted`, `tied`, one row per query, task after task in data order."""
    names = np.repeat(list(ranks), [len(task) for task in ranks.values()])
    table = pa.table({"task": pa.array(names).dictionary_encode(), **_arrays(list(ranks.values()), _SHARED)})
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", compression_level=19)


def read_ranks(path: Path) -> dict[str, Ranks]:
    """The ranks by task of a file: those of a submission, or of the one task of a run that the file is named after.

    Raises MmebError for a file that is missing, broken or far too large, and for a run's that contradicts itself.
    """
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > MAX_ROWS:
            raise ValueError(f"it has {file.metadata.num_rows} rows, at most {MAX_ROWS} are expected")
        is_submission = "task" in file.schema_arrow.names
        dtypes = _SHARED if is_submission else _COLUMNS
        table = file.read(columns=[*dtypes, *(["task"] if is_submission else [])])
        if table.num_rows == 0 or any(table[name].null_count for name in table.column_names):
            raise ValueError("it has no rows, or rows with gaps")
        nan = np.full(table.num_rows, np.nan, np.float32)
        columns = {name: table[name].cast(pa.from_numpy_dtype(t)).to_numpy().copy() for name, t in dtypes.items()}
        ranks = Ranks(**{"score": nan, "runner_up": nan, **columns})
        if is_submission:
            return _by_task(ranks, table["task"].cast(pa.string()))
        if problem := contradiction(ranks):
            raise ValueError(problem)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise MmebError(
            f"{path} can't be read as per-query ranks: {str(error).splitlines()[0]}; run the task (for a submission, "
            "`mmeb leaderboard submit`) again."
        ) from None
    return {path.name.removesuffix(RANKS_SUFFIX): ranks}


def _arrays(ranks: Sequence[Ranks], dtypes: Mapping[str, type]) -> dict[str, NDArray[np.generic]]:
    return {name: np.concatenate([getattr(r, name) for r in ranks], dtype=dtype) for name, dtype in dtypes.items()}


def _by_task(ranks: Ranks, tasks: pa.ChunkedArray) -> dict[str, Ranks]:
    encoded = tasks.combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    order, ends = np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))
    return {
        str(name): Ranks(**{column: getattr(ranks, column)[rows] for column in _COLUMNS})
        for name, rows in zip(encoded.dictionary.to_pylist(), np.split(order, ends[:-1]), strict=True)
    }


def contradiction(ranks: Ranks) -> str | None:
    """What in the ranks can't be true, or None."""
    if ranks.rank.min() < 1:
        return "a rank is below 1"
    if ranks.tied.min() < 0 or ranks.predicted.min() < 0:
        return "a count or a position is below 0"
    if (ranks.rank <= ranks.tied).any():
        return "a rank is not above its number of ties"
    return None


def metrics_from_ranks(rank: NDArray[np.int32]) -> dict[str, float]:
    """The public leaderboard's metrics, as fractions, of ranks (n_rows,) that start at 1.

    There is one relevant candidate per query: the ideal DCG is 1, linear and exponential gain are equal, and average
    precision is the reciprocal rank.
    """
    deepest = CUTOFFS[-1]
    at = np.arange(1, deepest + 1)
    counts = np.bincount(np.minimum(rank, deepest + 1), minlength=deepest + 2)[1:-1]  # (deepest,) queries at a rank
    hits, gains, reciprocals = (np.cumsum(counts * w) / len(rank) for w in (1, 1 / np.log2(at + 1), 1 / at))
    metrics: dict[str, float] = {}
    for k in CUTOFFS:
        hit, gain, reciprocal = float(hits[k - 1]), float(gains[k - 1]), float(reciprocals[k - 1])
        metrics |= {
            f"hit@{k}": hit,
            f"ndcg_linear@{k}": gain,
            f"ndcg_exponential@{k}": gain,
            f"precision@{k}": hit / k,
            f"recall@{k}": hit,
            f"f1@{k}": 2 * hit / (k + 1),
            f"map@{k}": reciprocal,
            f"mrr@{k}": reciprocal,
        }
    return metrics


def hit_at_1_ties_for_model(ranks: Ranks) -> float:
    """hit@1 under the reference's rule, which takes the first of equals: the ground truth stands first, so it wins."""
    return float((ranks.rank - ranks.tied == 1).mean())
