"""Several processes share one evaluation: each item once, the scores of one process, and one end for all."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from support.hash_model import HashModel
from support.processes import forked
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache
from mmeb.evaluation.encode import Encoder, encode
from mmeb.evaluation.evaluate import evaluate
from mmeb.models.base import Batch
from mmeb.runtime.processes import Processes, joined, launched, own_device
from mmeb.runtime.signals import StoppedError, listening

TASKS = "VOC2007,HatefulMemes,MSCOCO_t2i"


def texts(n: int = 90) -> list[Item]:
    return [Item(f"text {'long ' * (position % 7)}{position}") for position in range(n)]


class RankModel(HashModel):
    """Of one rank only: breaks, is slow, or has little memory."""

    def __init__(self, rank: int, *, fault: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.rank, self.rank_fault = rank, fault

    def embed(self, batch: Batch) -> Tensor:
        if self.rank == 1 and len(self.batch_sizes) >= 2:
            match self.rank_fault:
                case "bug":
                    raise ValueError("a bug")
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "terminated":
                    os.kill(os.getpid(), signal.SIGTERM)
        if self.rank == 1 and self.rank_fault == "slow":
            time.sleep(0.1)
        return super().embed(batch)


def encoded(model: HashModel, items: list[Item], folder: Path | None = None, workers: int = 0) -> Any:
    """Vectors, statistics and this process's batches, of an encoder in all processes."""
    with joined() as processes, listening() as stop:
        cache = None if folder is None else VectorCache(folder, seconds=0)
        with Encoder(model, 4, workers, False, cache, processes, stop) as encoder:
            vectors, statistics = encoder(items)
        return vectors, statistics, model.batch_sizes


@pytest.mark.parametrize("workers", [0, 1])
def test_each_item_is_encoded_once_and_to_the_bits_of_one_process(workers: int) -> None:
    items = [*texts(), *texts(5)]
    alone, _, batches = encoded(HashModel(), items)
    outcomes = forked(3, lambda rank: encoded(HashModel(), items, workers=workers))
    for vectors, statistics, _ in outcomes:
        np.testing.assert_array_equal(vectors, alone)
        assert statistics.items == 90
        assert statistics.batches == len(batches)
    done = [size for _, _, sizes in outcomes for size in sizes]
    assert sorted(done) == sorted(batches)


def test_who_is_done_takes_over_from_who_is_slow() -> None:
    (vectors, _, fast), (_, _, slow) = forked(2, lambda rank: encoded(RankModel(rank, fault="slow"), texts()))
    assert len(slow) < 5 < len(fast)
    np.testing.assert_array_equal(vectors, encode(HashModel(), texts(), batch_size=4, workers=0))


def test_two_processes_write_the_run_of_one(tmp_path: Path) -> None:
    def run(output: Path) -> Any:
        result = evaluate(HashModel(), TASKS, "demo", output, workers=0, save_embeddings=True)
        return {name: dict(task.metrics) for name, task in result.tasks.items()}

    expected = run(tmp_path / "one")
    assert forked(2, lambda rank: run(tmp_path / "two")) == [expected, expected]
    for path in (tmp_path / "one").iterdir():
        if path.suffix in {".parquet", ".safetensors"}:
            assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}


def test_a_process_group_that_is_there_is_used_and_left(tmp_path: Path) -> None:
    def train(rank: int) -> float:
        dist.init_process_group("gloo")
        for step in range(2):  # what an earlier call left in the group's store is not taken for its own
            evaluate(HashModel(), "VOC2007", "demo", tmp_path / str(step), workers=0)
        total = torch.tensor(float(rank))
        dist.all_reduce(total)
        return total.item()

    assert forked(2, train) == [1.0, 1.0]
    assert (tmp_path / "1" / "results.json").exists()


def test_an_image_that_one_cannot_read_ends_all_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    items = [*texts(), Item("x", image=tmp_path / "broken.png")]
    first, second = forked(2, lambda rank: encoded(HashModel(), items, workers=1))
    assert isinstance(first, MmebError)
    assert isinstance(second, MmebError)
    assert str(first) == str(second)
    assert "broken.png can't be decoded" in str(first)


def test_a_bug_in_one_keeps_its_kind_there_and_ends_the_others() -> None:
    first, second = forked(2, lambda rank: encoded(RankModel(rank, fault="bug"), texts()))
    assert isinstance(second, ValueError)
    assert isinstance(first, MmebError)
    assert "Process 1 failed with ValueError: a bug" in str(first)


def test_little_memory_in_one_makes_smaller_batches_for_all() -> None:
    outcomes = forked(2, lambda rank: encoded(HashModel(max_batch=2 if rank else 100), texts()))
    expected = encode(HashModel(), texts(), workers=0)
    for vectors, _, _ in outcomes:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert max(outcomes[1][2]) == 2


@pytest.mark.parametrize(("fault", "size"), [("killed", 1), ("terminated", 3)])
def test_what_was_encoded_is_taken_up_by_another_number_of_processes(tmp_path: Path, fault: str, size: int) -> None:
    first, second = forked(2, lambda rank: encoded(RankModel(rank, fault=fault), texts(), tmp_path))
    assert isinstance(first, StoppedError if fault == "terminated" else MmebError)
    assert second == -signal.SIGKILL or isinstance(second, StoppedError)
    outcomes = forked(size, lambda rank: encoded(HashModel(), texts(), tmp_path))
    expected = encode(HashModel(), texts(), batch_size=4, workers=0)
    for vectors, statistics, _ in outcomes:
        np.testing.assert_array_equal(vectors, expected)
        assert 0 < statistics.reused < 90
    assert sum(sum(sizes) for _, _, sizes in outcomes) == 90 - outcomes[0][1].reused


def test_a_model_that_is_shared_out_is_run_in_step_by_all(tmp_path: Path) -> None:
    for number in range(5):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    items = [*texts(), *(Item("look", image=tmp_path / f"{number}.png") for number in range(5))]

    def encode_sharded(rank: int) -> Any:
        dist.init_process_group("gloo")
        model = RankModel(rank, fault="slow")
        fully_shard(model.module, mesh=init_device_mesh("cpu", (2,)))
        return encoded(model, items, workers=1)

    expected = encode(HashModel(), items, batch_size=4, workers=0)
    outcomes = forked(2, encode_sharded)
    for vectors, _, _ in outcomes:
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert len(outcomes[0][2]) == len(outcomes[1][2])


def test_processes_with_other_data_are_told_apart(tmp_path: Path) -> None:
    for rank in range(2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{rank}.png")
    first, second = forked(2, lambda rank: evaluate(HashModel(dim=8 + rank), "VOC2007", "demo", tmp_path / "out"))
    assert "do not agree on what is run" in str(first) == str(second)


def test_the_launcher_s_environment_says_which_gpu_is_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "RANK": 7,
        "WORLD_SIZE": 8,
        "LOCAL_RANK": 3,
        "LOCAL_WORLD_SIZE": 4,
        "MASTER_ADDR": "x",
        "MASTER_PORT": 1,
    }
    assert own_device(launched(), "cuda") == "cuda"
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    assert (own_device(launched(), "cuda"), own_device(launched(), "cpu")) == ("cuda:3", "cpu")


def test_each_process_of_a_machine_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    third = Processes(rank=3, size=4, local_rank=1)
    assert own_device(third, "cuda") == "cuda:1"
    assert own_device(third, "cpu") == "cpu"
    assert own_device(Processes(), "cuda:5") == "cuda:5"
    with pytest.raises(MmebError, match="one GPU each"):
        own_device(third, "cuda:0")
    with pytest.raises(MmebError, match="one GPU each"):
        own_device(third, None, "auto")
