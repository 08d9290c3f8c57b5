"""Every item in one batch, of its own kind, within the limit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmeb.errors import MmebError
from mmeb.runtime.batching import BatchLimit, plan_batches


@given(
    st.lists(st.tuples(st.integers(1, 500), st.sampled_from("abc")), max_size=60),
    st.integers(1, 9),
    st.none() | st.integers(1, 2_000),
)
def test_a_plan_holds_each_item_once_in_batches_of_one_group_within_the_limit(
    items: list[tuple[int, str]], max_items: int, max_tokens: int | None
) -> None:
    costs = np.array([cost for cost, _ in items], dtype=np.int64)
    groups = [group for _, group in items]
    plan = plan_batches(costs, groups, BatchLimit(max_items, max_tokens))
    assert sorted(index for batch in plan for index in batch) == list(range(len(items)))
    for batch in plan:
        assert len({groups[index] for index in batch}) == 1
        assert len(batch) <= max_items
        assert max_tokens is None or len(batch) == 1 or costs[batch].max() * len(batch) <= max_tokens


def test_sorting_by_cost_keeps_padding_small() -> None:
    costs = np.random.default_rng(0).integers(10, 400, 2_000)
    plan = plan_batches(costs, ["text"] * len(costs), BatchLimit(64, 8_192))
    padded = sum(costs[batch].max() * len(batch) for batch in plan)
    assert padded < 1.05 * costs.sum()


def test_a_batch_ends_where_its_padding_would_cost_more_than_another_batch() -> None:
    costs = np.array([100, 98, 96, 50, 49])
    plan = plan_batches(costs, ["text"] * 5, BatchLimit(64, 8_192, padding=10))
    assert [batch.tolist() for batch in plan] == [[0, 1, 2], [3, 4]]
    assert len(plan_batches(costs, ["text"] * 5, BatchLimit(64, 8_192, padding=200))) == 1


def test_the_costliest_batch_comes_first_so_that_want_of_memory_shows_at_once() -> None:
    costs = np.array([5, 100, 7, 90])
    first = plan_batches(costs, ["text"] * 4, BatchLimit(2))[0]
    assert set(first) == {1, 3}


def test_a_limit_is_halved_for_the_batch_that_did_not_fit() -> None:
    costs = np.full(8, 100)
    limit = BatchLimit.parse("auto", "cpu").halved(costs)
    assert max(len(batch) for batch in plan_batches(costs, ["text"] * 8, limit)) == 4
    assert BatchLimit.parse(8, "cpu").halved(costs) == BatchLimit(4)


@pytest.mark.parametrize("batch_size", ["0", "-1", "many", "1.5"])
def test_a_batch_size_that_is_none_is_a_plain_error(batch_size: str) -> None:
    with pytest.raises(MmebError, match="batch size"):
        BatchLimit.parse(batch_size, "cpu")
