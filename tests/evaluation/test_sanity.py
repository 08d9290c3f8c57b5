"""What the reference scores 100% is refused here."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mmeb.errors import MmebError
from mmeb.evaluation.sanity import check_embeddings, mean_pairwise_cosine


def vectors(n: int = 50) -> NDArray[np.float32]:
    raw = np.random.default_rng(0).normal(size=(n, 16))
    unit: NDArray[np.float32] = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    return unit


def broken(kind: str) -> NDArray[np.float32]:
    result = vectors()
    match kind:
        case "nan":
            result[3, 2] = np.nan
        case "infinity":
            result[0, 0] = np.inf
        case "zero":
            result[7] = 0
        case "collapsed":
            result[:] = result[0]
    return result


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [("nan", "NaN or infinity"), ("infinity", "NaN or infinity"), ("zero", "are zero"), ("collapsed", "collapsed")],
)
def test_a_broken_set_is_refused_with_its_tasks_name(kind: str, sentence: str) -> None:
    with pytest.raises(MmebError, match=f"WebQA: the queries: .*{sentence}"):
        check_embeddings(broken(kind), "WebQA: the queries")


def test_a_sound_set_passes_with_its_statistics() -> None:
    statistics = check_embeddings(vectors(), "WebQA: the queries")
    assert statistics["count"] == 50
    assert statistics["mean_norm"] == pytest.approx(1, abs=1e-6)


def test_mean_pairwise_cosine_is_the_mean_of_the_cosine_matrix() -> None:
    unit = vectors(20)
    cosines = unit @ unit.T
    assert mean_pairwise_cosine(unit) == pytest.approx(cosines[~np.eye(20, dtype=bool)].mean(), abs=1e-6)


def test_one_vector_has_no_pairs() -> None:
    assert mean_pairwise_cosine(vectors(1)) is None
    assert check_embeddings(vectors(1), "x")["mean_pairwise_cosine"] is None
