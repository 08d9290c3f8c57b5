"""Where the ground truth of each query stood, beside the scores, so that anyone can recompute and compare."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.files import replacing

CUTOFFS = (1, 5, 10)

_COLUMNS = {"rank": np.int32, "predicted": np.int32, "tied": np.int32, "score": np.float32, "runner_up": np.float32}


@dataclass(frozen=True)
class Ranks:
    """The outcome of each query of a task, in data order; every array is (n_rows,).

    `rank` is 1 + the number of other distinct candidates that score at least as high as the ground truth: ties count
    against the model. `predicted` is the position of the best candidate in the row's own list, the first of equals.
    `tied` is the number of other distinct candidates that score exactly as the ground truth. `score` is the ground
    truth's, `runner_up` the best of the other distinct candidates', minus infinity where there is none.
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
    """Write one row per query to the parquet file `path`, whole or not at all."""
    table = pa.table({name: np.asarray(getattr(ranks, name), dtype=dtype) for name, dtype in _COLUMNS.items()})
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def read_ranks(path: Path) -> Ranks:
    """Read what `write_ranks` wrote. Raises MmebError for a file that is missing, broken or contradicts itself."""
    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
        table = table.cast(pa.schema({name: pa.from_numpy_dtype(dtype) for name, dtype in _COLUMNS.items()}))
        if any(column.null_count for column in table.columns):
            raise ValueError("it has rows with gaps")
        ranks = Ranks(**{name: table[name].to_numpy().copy() for name in _COLUMNS})
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise MmebError(f"{path} can't be read as per-query ranks: {reason}; run the task again.") from None
    if problem := _contradiction(ranks):
        raise MmebError(f"{path} is no file of per-query ranks: {problem}; run the task again.")
    return ranks


def _contradiction(ranks: Ranks) -> str | None:
    """What can't be true of ranks, or None."""
    if len(ranks) == 0:
        return "it has no rows"
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
