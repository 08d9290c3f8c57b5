"""Tests and intervals against statsmodels, which we did not write."""

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar as peer_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from mmeb.results import statistics


@pytest.mark.parametrize(("gained", "lost"), [(0, 12), (3, 12), (12, 3), (20, 20), (1, 0), (150, 90)])
def test_mcnemar_agrees_with_a_peer(gained: int, lost: int) -> None:
    peer = peer_mcnemar([[500, lost], [gained, 300]], exact=True).pvalue
    assert statistics.mcnemar(gained, lost) == pytest.approx(peer, rel=1e-9)


def test_no_change_is_no_difference() -> None:
    assert statistics.mcnemar(0, 0) == 1.0
    assert statistics.unpaired(300, 1000, 300, 1000) == 1.0


def test_holm_agrees_with_a_peer() -> None:
    p = np.random.default_rng(0).uniform(0, 0.05, size=36)
    p[3] = p[7]  # equal ones
    assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1], rel=1e-12)


def test_holm_of_nothing_is_nothing() -> None:
    assert len(statistics.holm([])) == 0


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (558, 1000), (3, 1000)])
def test_the_binomial_interval_agrees_with_a_peer(hits: int, n: int) -> None:
    assert statistics.binomial_interval(hits, n) == pytest.approx(proportion_confint(hits, n, method="wilson"))


@pytest.mark.parametrize(("a", "b"), [(500, 480), (0, 3), (1000, 990), (75, 75)])
def test_the_interval_of_unpaired_counts_agrees_with_a_peer(a: int, b: int) -> None:
    peer = confint_proportions_2indep(b, 1000, a, 1000, method="newcomb", compare="diff")
    assert statistics.unpaired_interval(a, 1000, b, 1000) == pytest.approx(peer)


def test_fisher_is_the_sum_of_the_tables_that_are_no_likelier() -> None:
    from math import comb

    def likelihood(hits_a: int) -> float:  # of 8 + 9 queries, 7 hits in all
        return comb(8, hits_a) * comb(9, 7 - hits_a) / comb(17, 7)

    expected = sum(likelihood(k) for k in range(8) if likelihood(k) <= likelihood(6) * (1 + 1e-9))
    assert statistics.unpaired(6, 8, 1, 9) == pytest.approx(expected)


def test_the_paired_bootstrap_agrees_with_the_normal_interval_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    change = rng.choice([-1.0, 0.0, 1.0], p=[0.08, 0.86, 0.06], size=5000)
    low, high = statistics.bootstrap_intervals([change], np.ones((1, 1)))[0]
    assert (low, high) == pytest.approx(DescrStatsW(change).zconfint_mean(), abs=0.0005)  # 0.05 points


def test_queries_are_resampled_within_their_task() -> None:
    # Two tasks that are sure of their outcome leave nothing to chance, however far apart they are.
    samples = [np.full(50, 1.0), np.full(10, -1.0)]
    weights = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert statistics.bootstrap_intervals(samples, weights).tolist() == [[0.0, 0.0], [1.0, 1.0]]


def test_the_interval_of_a_mean_over_tasks_agrees_with_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(2)
    samples = [rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.85, 0.05], size=n) for n in (300, 1000, 700)]
    means = [
        np.mean([sample[rng.integers(0, len(sample), len(sample))].mean() for sample in samples]) for _ in range(4000)
    ]
    expected = np.percentile(means, [2.5, 97.5])
    ours = statistics.bootstrap_intervals(samples, np.full((1, 3), 1 / 3))[0]
    assert ours == pytest.approx(expected, abs=0.0012)


def test_the_same_files_give_the_same_interval() -> None:
    sample = np.random.default_rng(3).choice([-1.0, 0.0, 1.0], size=200)
    first, second = (statistics.bootstrap_intervals([sample], np.ones((1, 1))) for _ in range(2))
    assert (first == second).all()
