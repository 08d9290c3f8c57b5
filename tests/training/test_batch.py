"""What a step consists of, and which process runs what."""

from dataclasses import replace

import pytest
import torch
from support.contrastive_steps import golden_pairs, item, make_step

from mmeb.data.item import Item, Role
from mmeb.data.train.dataset import TrainPair
from mmeb.models.adapters.demo import DemoConfig, DemoModel
from mmeb.training.batch import hash_seed, pair_up, plan_step
from mmeb.training.recipe import Recipe

RECIPE = Recipe("demo", batch_size=8, micro_batch_size=3)


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
    first, second = ([_positives(model, pairs, step, world) for world in (1, 2)] for step in (0, 1))
    assert first[0] == first[1]  # in every process
    assert second[0] == second[1]
    assert first[0] != second[0]


def _positives(model: DemoModel, pairs: list[TrainPair], step: int, world: int) -> list[tuple[int, ...]]:
    """The words of each row's positive, as the model takes them."""
    recipe = replace(RECIPE, micro_batch_size=1)
    words: dict[int, tuple[int, ...]] = {}
    for rank in range(world):
        batch = make_step(model, pairs, recipe, rank=rank, world=world, step=step)
        for (each,) in batch.first_pass():
            assert each.inputs is not None
            words[int(each.positions[0])] = tuple(each.inputs.inputs["ids"].flatten().tolist())
    return [words[position] for position in batch.plan.pairing.candidates]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_processes_parts_hold_every_item_once(model: DemoModel, world: int) -> None:
    parts = [make_step(model, golden_pairs(), RECIPE, rank=rank, world=world) for rank in range(world)]
    passes = [list(part.first_pass()) for part in parts]
    assert len({len(each) for each in passes}) == 1
    items = [position for part in passes for (each,) in part if not each.filler for position in each.positions]
    assert sorted(items) == list(range(parts[0].plan.pairing.n_items))
    for row in zip(*passes, strict=True):
        assert len({each.inputs is not None and "pixels" in each.inputs.inputs for (each,) in row}) == 1


def test_micro_batches_of_processes_have_the_numbers_of_one_process(model: DemoModel) -> None:
    """Their random states start from these."""

    def numbers(world: int) -> dict[int, int]:
        plans = [make_step(model, golden_pairs(), RECIPE, rank=rank, world=world).plan for rank in range(world)]
        micro_batches = [each for plan in plans for (each,) in plan.passes if not each.filler]
        return {int(position): each.number for each in micro_batches for position in each.positions}

    assert numbers(1) == numbers(2) == numbers(3)
    assert len(set(numbers(1).values())) > 3


def test_a_seed_follows_from_numbers_alone() -> None:
    assert hash_seed(42, 0, 1) == 7597860616009940888
    assert len({hash_seed(a, b) for a in range(20) for b in range(20)}) == 400


def test_rows_of_several_subsets_are_one_batch(model: DemoModel) -> None:
    pairs = golden_pairs()
    plan = plan_step(model, [pairs[:4], pairs[4:]], RECIPE, 0, [(1, 0), (0, 2)])
    assert plan.items == make_step(model, [pairs[4], pairs[2]], RECIPE).plan.items
