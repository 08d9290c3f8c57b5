"""What a step consists of, and which process runs what."""

import multiprocessing
from dataclasses import replace

import numpy as np
import pytest
import torch
from contrastive_steps import golden_pairs, item, make_step, whole_draw
from torch.utils.data import DataLoader

from mmeb.data.item import Item, Role
from mmeb.data.train import TrainPair
from mmeb.evaluation.batching import BatchLimit
from mmeb.models.demo import DemoConfig, DemoModel
from mmeb.training.recipe import Recipe
from mmeb.training.sampler import Draw
from mmeb.training.step import Planned, StepBatch, Steps, hash_seed, pair_up, plan_rounds

RECIPE = Recipe("demo", batch_size=8, sub_batch_size=3)


@pytest.fixture(scope="module")
def model() -> DemoModel:
    return DemoModel.new(DemoConfig(dim=32, layers=1), seed=0, device=torch.device("cpu"))


def _text_pair(query: str, *positives: str, negatives: tuple[str, ...] = ()) -> TrainPair:
    return TrainPair(
        item(query, "", Role.QUERY),
        tuple(item(text, "", Role.CANDIDATE) for text in positives),
        tuple(item(text, "", Role.CANDIDATE) for text in negatives),
    )


def test_an_item_that_occurs_twice_is_there_once() -> None:
    pairs = [_text_pair("a", "x"), _text_pair("b", "x"), _text_pair("a", "y", negatives=("x", "z"))]
    items, pairing = pair_up(pairs, [0, 0, 0], None)
    assert [one.text for one in items] == ["a", "b", "x", "y", "z"]
    assert pairing.n_items == 5
    assert pairing.queries.tolist() == [0, 1, 0]
    assert pairing.candidates.tolist() == [2, 2, 3, 2, 4]  # as often as they occur


def test_candidates_that_equal_a_rows_positive_are_the_same() -> None:
    pairs = [_text_pair("a", "x"), _text_pair("b", "x"), _text_pair("c", "y", negatives=("x", "z"))]
    _, pairing = pair_up(pairs, [0, 0, 0], None)
    assert pairing.same.tolist() == [
        [True, True, False, True, False],
        [True, True, False, True, False],
        [False, False, True, False, False],
    ]


def test_equal_is_what_is_equal_in_text_and_image_whatever_the_instruction() -> None:
    image = item("", "set0/im000.png", Role.CANDIDATE).image
    one, other = (
        Item(f"<|image_1|>\n{instruction}\n", instruction, "", image, Role.CANDIDATE)
        for instruction in ("Crop.", "Show.")
    )
    query = item("a", "", Role.QUERY)
    items, pairing = pair_up([TrainPair(query, (one,)), TrainPair(query, (other,))], [0, 0], None)
    assert len(items) == 3
    assert pairing.same.all()


def test_all_positives_of_a_row_are_no_negatives_of_it() -> None:
    pairs = [_text_pair("a", "x", "y"), _text_pair("b", "y"), _text_pair("c", "x")]
    _, pairing = pair_up(pairs, [0, 0, 0], None)
    assert pairing.same.tolist() == [[True, True, True], [False, True, False], [True, False, True]]


def test_so_many_hard_negatives_are_used() -> None:
    pairs = [_text_pair("a", "x", negatives=("p", "q", "r")), _text_pair("b", "y")]
    assert [len(pair_up(pairs, [0, 0], cap)[1].candidates) for cap in (None, 2, 0)] == [5, 4, 2]


def test_the_positive_that_a_row_is_trained_on_changes_from_step_to_step(model: DemoModel) -> None:
    pairs = [_text_pair(f"query {row}", *(f"{row} {number}" for number in range(3))) for row in range(20)]
    first, second = ([_chosen(model, pairs, step, world) for world in (1, 2)] for step in (0, 1))
    assert first[0] == first[1]  # in every process
    assert second[0] == second[1]
    assert first[0] != second[0]


def _chosen(model: DemoModel, pairs: list[TrainPair], step: int, world: int) -> list[tuple[int, ...]]:
    """The words of each row's positive, as the model takes them."""
    recipe = replace(RECIPE, sub_batch_size=1)
    words: dict[int, tuple[int, ...]] = {}
    for rank in range(world):
        batch = make_step(model, pairs, recipe, rank=rank, world=world, step=step)
        for (sub,) in batch.rounds:
            words[int(sub.items[0])] = tuple(sub.batch.inputs["ids"].flatten().tolist())
    return [words[position] for position in batch.pairing.candidates]


COSTS = np.array([9, 8, 7, 6, 5, 4, 30, 20, 10])
GROUPS = ["text"] * 6 + ["image"] * 3


def _shape(rounds: list[list[list[Planned]]]) -> list[list[list[list[int]]]]:
    return [[[planned.items.tolist() for planned in row] for row in rows] for rows in rounds]


def test_a_round_is_of_one_kind_in_all_processes_and_the_costliest_is_last() -> None:
    rounds = plan_rounds(COSTS, GROUPS, BatchLimit(2), world=2)
    assert _shape(rounds) == [[[[4, 5], [5]]], [[[0, 1], [2, 3]]], [[[6, 7], [8]]]]
    assert [planned.filler for rows in rounds for row in rows for planned in row] == [False, True] + [False] * 4


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_what_runs_together_does_not_depend_on_the_number_of_processes(world: int) -> None:
    alone = plan_rounds(COSTS, GROUPS, BatchLimit(2), world=1)
    many = plan_rounds(COSTS, GROUPS, BatchLimit(2), world)
    expected, found = (
        {
            planned.number: planned.items.tolist()
            for rows in rounds
            for row in rows
            for planned in row
            if not planned.filler
        }
        for rounds in (alone, many)
    )
    assert found == expected


@pytest.mark.parametrize("world", [1, 2, 4])
def test_without_a_limit_there_is_one_round_which_the_processes_share(world: int) -> None:
    (rows,) = plan_rounds(COSTS, GROUPS, None, world)
    assert len(rows) == 2
    for row in rows:
        assert len(row) == world
        assert len({GROUPS[int(planned.items[0])] for planned in row}) == 1
        sizes = [len(planned.items) for planned in row if not planned.filler]
        assert max(sizes) - min(sizes) <= 1
    covered = [position for row in rows for planned in row if not planned.filler for position in planned.items]
    assert sorted(covered) == list(range(9))


def test_a_token_budget_bounds_a_sub_batch() -> None:
    rounds = plan_rounds(COSTS, GROUPS, BatchLimit(100, 18), world=1)
    sizes = [COSTS[planned.items].max() * len(planned.items) for rows in rounds for row in rows for planned in row]
    assert [size for size in sizes if size > 18] == [20, 30]  # those that are over it by themselves


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_processes_parts_hold_every_item_once(model: DemoModel, world: int) -> None:
    parts = [make_step(model, golden_pairs(), RECIPE, rank=rank, world=world) for rank in range(world)]
    assert len({len(part.rounds) for part in parts}) == 1
    items = [position for part in parts for (sub,) in part.rounds if not sub.filler for position in sub.items]
    assert sorted(items) == list(range(parts[0].pairing.n_items))
    for subs in zip(*(part.rounds for part in parts), strict=True):
        assert len({"pixels" in sub.batch.inputs for (sub,) in subs}) == 1


def test_sub_batches_of_processes_have_the_seeds_of_one_process(model: DemoModel) -> None:
    def seeds(world: int) -> dict[int, int]:
        parts = [make_step(model, golden_pairs(), RECIPE, rank=rank, world=world) for rank in range(world)]
        subs = [sub for part in parts for (sub,) in part.rounds if not sub.filler]
        return {int(position): sub.seed for sub in subs for position in sub.items}

    assert seeds(1) == seeds(2) == seeds(3)
    assert len(set(seeds(1).values())) > 3


def test_a_seed_follows_from_numbers_alone() -> None:
    assert hash_seed(42, 0, 1) == 7597860616009940888
    assert len({hash_seed(a, b) for a in range(20) for b in range(20)}) == 400


def test_steps_come_from_worker_processes(model: DemoModel) -> None:
    steps = Steps(model, [golden_pairs()], RECIPE)
    draws = [whole_draw(golden_pairs(), step) for step in range(3)]
    fork = multiprocessing.get_context("fork")
    loader = DataLoader(steps, sampler=draws, batch_size=None, num_workers=2, multiprocessing_context=fork)
    for made, draw in zip(loader, draws, strict=True):
        expected = steps[draw]
        assert isinstance(made, StepBatch)
        assert isinstance(expected, StepBatch)
        assert made.step == draw.step
        assert [sub.seed for (sub,) in made.rounds] == [sub.seed for (sub,) in expected.rounds]
        for (found,), (wanted,) in zip(made.rounds, expected.rounds, strict=True):
            assert all(torch.equal(found.batch.inputs[name], wanted.batch.inputs[name]) for name in wanted.batch.inputs)


def test_a_draw_of_several_subsets_is_one_batch(model: DemoModel) -> None:
    pairs = golden_pairs()
    made = Steps(model, [pairs[:4], pairs[4:]], RECIPE)[Draw(0, [(1, 0), (0, 2)])]
    expected = make_step(model, [pairs[4], pairs[2]], RECIPE)
    assert isinstance(made, StepBatch)
    assert made.pairing.n_items == expected.pairing.n_items
