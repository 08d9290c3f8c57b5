"""Whether a difference between two runs is real: tests and intervals on hits, as fractions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 2000
_SEED = 0  # the same two files give the same interval


def mcnemar(gained: int, lost: int) -> float:
    """p of McNemar's exact test: of the queries that changed sides, are as many gained as lost?"""
    changed = gained + lost
    return float(stats.binomtest(gained, changed, 0.5).pvalue) if changed else 1.0


def unpaired(hits_a: int, n_a: int, hits_b: int, n_b: int) -> float:
    """p of Fisher's exact test for two counts of hits whose queries can't be paired.

    On the same queries it is cautious: what two runs have in common counts as noise.
    """
    return float(stats.fisher_exact(np.array([[hits_a, n_a - hits_a], [hits_b, n_b - hits_b]])).pvalue)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down correction of p values (n,): the chance of even one false alarm among them stays at the level.

    Source: S. Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def binomial_interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the hit rate."""
    interval = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def unpaired_interval(hits_a: int, n_a: int, hits_b: int, n_b: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of b's hit rate minus a's where the queries can't be paired, from the two Wilson intervals.

    Source: R. Newcombe, Interval estimation for the difference between independent proportions, 1998, method 10.
    """
    a, b = hits_a / n_a, hits_b / n_b
    (low_a, high_a), (low_b, high_b) = binomial_interval(hits_a, n_a, level), binomial_interval(hits_b, n_b, level)
    low = b - a - np.hypot(b - low_b, high_a - a)
    high = b - a + np.hypot(high_b - b, a - low_a)
    return float(low), float(high)


def bootstrap_intervals(
    samples: Sequence[NDArray[np.float64]],
    weights: NDArray[np.float64],
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> NDArray[np.float64]:
    """Percentile bootstrap intervals (n_groups, 2) of weighted sums of the samples' means.

    Each sample holds one value per query and is resampled by itself; `weights` is (n_groups, n_samples). The paired
    interval of an average over tasks takes one sample a task, the difference of each query's hits, and 1 / n_tasks.
    """

    def weighted_means(*resampled: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.tensordot(weights, np.stack([sample.mean(axis=axis) for sample in resampled]), axes=1)

    interval = stats.bootstrap(
        samples,
        weighted_means,
        n_resamples=resamples,
        batch=max(1, resamples // 20),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return np.stack([interval.low, interval.high], axis=-1)
