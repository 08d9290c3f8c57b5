"""What may go wrong while a run encodes: it ends in a plain sentence, keeps what it has, and never hangs."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.hash_model import HashModel
from torch import Tensor

from mmeb.data.item import Item
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache
from mmeb.evaluation.encode import Encoder, EncodeStatistics, encode
from mmeb.models.base import Batch
from mmeb.runtime.signals import StoppedError, StopRequest, listening

pytestmark = pytest.mark.timeout(60)  # a hang is the failure that these tests look for


def texts(n: int = 40) -> list[Item]:
    return [Item(f"text {position}") for position in range(n)]


class Killing(HashModel):
    """A worker that comes to `text 20` ends itself, as the system does where memory runs out."""

    def preprocess(self, items: Sequence[Item]) -> Batch:
        if any(item.prompt == "text 20" for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().preprocess(items)


class Terminated(HashModel):
    """Is told to end while its third batch is computed."""

    def embed(self, batch: Batch) -> Tensor:
        if len(self.batch_sizes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().embed(batch)


def encoded(
    model: HashModel, folder: Path, batch_size: int = 4, workers: int = 0, stop: StopRequest | None = None
) -> tuple[NDArray[np.float32], EncodeStatistics]:
    """The texts' vectors, with a cache in `folder` that is written after every batch."""
    cache = VectorCache(folder, seconds=0)
    with Encoder(model, batch_size, workers, False, cache, stop=stop or StopRequest()) as encoder:
        return encoder(texts())


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """No file, shared memory included, may grow beyond `size` bytes: it fails like a full disk."""
    earlier = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, earlier[0][1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, earlier[0])
        signal.signal(signal.SIGXFSZ, earlier[1])


def test_a_killed_worker_ends_the_run_which_can_be_taken_up(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"worker process .* was killed"):
        encoded(Killing(), tmp_path, 1, 2)
    vectors, statistics = encoded(HashModel(), tmp_path, 1, 2)
    assert 0 < statistics.reused < 40
    np.testing.assert_array_equal(vectors, encode(HashModel(), texts(), batch_size=1))


def test_a_worker_without_shared_memory_says_so() -> None:
    with small_files(20_000), pytest.raises(MmebError, match=r"shared memory .*--batch-size"):
        encode(HashModel(dim=4_000), texts(), batch_size=8, workers=1)


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    with small_files(20_000), pytest.raises(MmebError, match="can't be written"):
        encoded(HashModel(dim=1_000), tmp_path)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if path.suffix == ".part"]
    vectors, statistics = encoded(HashModel(dim=1_000), tmp_path)
    assert statistics.reused == 4 * len(left)
    np.testing.assert_array_equal(vectors, encode(HashModel(dim=1_000), texts(), batch_size=4, workers=0))


def test_an_item_over_the_token_budget_runs_alone() -> None:
    model = HashModel()
    encode(model, [*texts(), Item("long " * 10_000)], workers=0)
    assert model.batch_sizes[0] == 1
    assert sum(model.batch_sizes) == 41


@pytest.mark.parametrize("workers", [0, 1])
def test_sigterm_finishes_the_batch_and_the_rest_is_done_by_the_next_run(tmp_path: Path, workers: int) -> None:
    model = Terminated()
    with listening() as stop, pytest.raises(StoppedError, match="the same command again") as caught:
        encoded(model, tmp_path, 4, workers, stop)
    assert caught.value.exit_code == 143
    assert model.batch_sizes == [4, 4, 4]
    vectors, statistics = encoded(HashModel(), tmp_path)
    assert statistics.reused == 12
    np.testing.assert_array_equal(vectors, encode(HashModel(), texts(), batch_size=4, workers=0))


def test_who_handles_sigterm_already_is_left_to_it() -> None:
    heard: list[int] = []
    earlier = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with listening() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert not stop.made
    finally:
        signal.signal(signal.SIGTERM, earlier)


def test_a_run_that_is_terminated_with_its_workers_exits_143_and_keeps_what_it_encoded(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from mmeb.cli.main import main; from mmeb.models.adapters import demo\n"
        "embed, calls = demo.DemoModel.embed, []\n"
        "def terminated(self, batch):\n"
        "    calls.append(batch)\n"
        "    if len(calls) == 20: os.killpg(0, signal.SIGTERM)\n"  # Slurm signals all processes, workers too
        "    return embed(self, batch)\n"
        "demo.DemoModel.embed = terminated\n"
        "main(sys.argv[1:])"
    )
    run = "run --model demo --data demo --workers 1 --batch-size 4 --tasks VOC2007 --output"
    done = subprocess.run(
        [sys.executable, "-c", code, *run.split(), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
    )
    assert done.returncode == 143, done.stderr
    assert "Stopped on request" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out" / ".vectors").rglob("*.safetensors"))
