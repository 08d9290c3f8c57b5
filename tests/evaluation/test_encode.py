"""Encoding: each item once, in any batches, broken off and taken up again."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.hash_model import HashModel

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache
from mmeb.evaluation.encode import Encoder, encode


def texts(n: int = 40) -> list[Item]:
    return [Item(f"text {'long ' * (position % 7)}{position}") for position in range(n)]


@pytest.mark.parametrize("batch_size", [1, 3, 40, "auto"])
@pytest.mark.parametrize("workers", [0, 2])
def test_the_vectors_do_not_depend_on_batches_or_workers(batch_size: int | str, workers: int) -> None:
    items = texts()
    expected = np.concatenate([encode(HashModel(), [item], workers=0) for item in items])
    np.testing.assert_allclose(encode(HashModel(), items, batch_size=batch_size, workers=workers), expected, atol=1e-6)


def test_vectors_come_in_the_order_of_the_items() -> None:
    items = texts()
    np.testing.assert_allclose(encode(HashModel(), items[::-1]), encode(HashModel(), items)[::-1], atol=1e-6)


def test_an_item_that_occurs_often_is_encoded_once() -> None:
    model = HashModel()
    vectors, statistics = Encoder(model, workers=0, progress=False)([*texts(5), *texts(5)])
    assert statistics.items == sum(model.batch_sizes) == 5
    np.testing.assert_array_equal(vectors[:5], vectors[5:])


def test_batches_hold_one_modality(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    model = HashModel()
    encode(model, [Item("a"), Item("b", image=tmp_path / "a.png"), Item("c")], workers=0)
    assert sorted(model.batch_sizes) == [1, 2]


def test_out_of_memory_halves_the_batch_until_it_fits_and_is_remembered() -> None:
    model = HashModel(max_batch=5)
    encoder = Encoder(model, "auto", workers=0, progress=False)
    vectors, _ = encoder(texts(32))
    np.testing.assert_allclose(vectors, encode(HashModel(), texts(32), batch_size=1, workers=0), atol=1e-6)
    assert max(model.batch_sizes) <= 5
    refused_before = len(model.batch_sizes)
    encoder([Item(f"more {position}") for position in range(8)])
    assert max(model.batch_sizes[refused_before:]) <= 5


def test_an_item_that_does_not_fit_alone_is_named() -> None:
    with pytest.raises(MmebError, match=r"not enough memory .*'text 0'"):
        encode(HashModel(max_batch=0), texts(1), workers=0)


def test_a_broken_image_is_a_plain_sentence_from_a_worker(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(MmebError, match=r"broken\.png") as caught:
        encode(HashModel(), [*texts(8), Item("x", image=tmp_path / "broken.png")], workers=2)
    assert "Traceback" not in str(caught.value)


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(MmebError, match="workers"):
        encode(HashModel(), texts(1), workers=-1)


def test_no_items_give_no_vectors() -> None:
    assert encode(HashModel(), []).shape == (0, 16)


def test_after_a_break_only_the_rest_is_encoded_in_the_same_batches(tmp_path: Path) -> None:
    items = texts(30)
    with pytest.raises(KeyboardInterrupt):
        Encoder(HashModel(breaks_after=5), 4, 0, False, VectorCache(tmp_path, seconds=0))(items)
    model = HashModel()
    vectors, statistics = Encoder(model, 4, 0, False, VectorCache(tmp_path))(items)
    assert statistics.reused == 20
    assert sum(model.batch_sizes) == 10
    unbroken, _ = Encoder(HashModel(), 4, 0, False)(items)
    np.testing.assert_array_equal(vectors, unbroken)


def test_what_another_task_has_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    encoder = Encoder(model := HashModel(), 4, 0, False, VectorCache(tmp_path))
    encoder(texts(20), "one")
    vectors, statistics = encoder(texts(30), "two")
    assert statistics.reused == 20
    assert sum(model.batch_sizes) == 30
    np.testing.assert_allclose(vectors, encode(HashModel(), texts(30), workers=0), atol=1e-6)


def test_an_image_that_changed_under_its_name_is_encoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (4, 4), "red").save(path)
    cache = tmp_path / "cache"
    before, _ = Encoder(HashModel(), 4, 0, False, VectorCache(cache))([Item("x", image=path)])
    Image.new("RGB", (8, 8), "blue").save(path)
    after, statistics = Encoder(HashModel(), 4, 0, False, VectorCache(cache))([Item("x", image=path)])
    assert statistics.reused == 0
    assert not np.array_equal(before, after)


def test_a_chunk_that_was_cut_off_is_discarded(tmp_path: Path) -> None:
    items = texts(6)
    Encoder(HashModel(), 4, 0, False, VectorCache(tmp_path))(items)
    (chunk,) = tmp_path.glob("*/*.safetensors")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    vectors, statistics = Encoder(HashModel(), 4, 0, False, VectorCache(tmp_path))(items)
    assert statistics.reused == 0
    np.testing.assert_allclose(vectors, encode(HashModel(), items, workers=0), atol=1e-6)
