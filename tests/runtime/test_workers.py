"""The pool of worker processes: what comes back, in which order, what is asked for when, and what happens to errors."""

import faulthandler
import gc
import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import psutil
import pytest
import torch

from mmeb.errors import MmebError
from mmeb.runtime.workers import SharedMemoryError, WorkerDiedError, WorkerPool

pytestmark = pytest.mark.timeout(60)  # a hang is the failure that these tests look for

NAPS = [0.3, 0.0, 0.0, 0.0]


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def square(number: int) -> int:
    return number**2


def process(_: object) -> int:
    return os.getpid()


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_work(workers: int) -> None:
    with WorkerPool(square, workers) as pool:
        assert list(pool.map(range(50))) == [square(number) for number in range(50)]


def test_without_order_who_is_ready_comes_first() -> None:
    with WorkerPool(nap, 2, ahead=1) as pool:
        assert list(pool.map(NAPS, ordered=False)) == sorted(NAPS)
        assert list(pool.map(NAPS)) == NAPS


def test_without_workers_all_is_done_in_this_process() -> None:
    with WorkerPool(process, 0) as pool:
        assert list(pool.map("ab")) == [os.getpid()] * 2


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 1), (2, 3)])
@pytest.mark.parametrize("ordered", [True, False])
def test_work_is_asked_for_only_as_workers_can_take_it(workers: int, ahead: int, ordered: bool) -> None:
    asked: list[int] = []

    def work() -> Iterator[int]:
        for number in range(40):
            asked.append(number)
            yield number

    with WorkerPool(square, workers, ahead=ahead) as pool:
        for done, _ in enumerate(pool.map(work(), ordered=ordered), 1):
            assert len(asked) <= done + workers * ahead
    assert len(asked) == 40


def test_workers_are_kept_from_one_call_to_the_next_and_made_only_for_work() -> None:
    with WorkerPool(process, 8) as pool:
        first = set(pool.map(range(2)))
        assert len(first) <= 2
        assert first <= set(pool.map(range(40)))
        assert os.getpid() not in first


def test_a_call_that_is_abandoned_leaves_nothing_to_the_next() -> None:
    with WorkerPool(nap, 2) as pool:
        next(pool.map(itertools.repeat(0.01)))
        assert list(pool.map([0.0, 0.02])) == [0.0, 0.02]


def test_tensors_and_arrays_arrive_as_they_were_sent() -> None:
    def content(number: int) -> dict[str, object]:
        pixels = torch.arange(2 * 3 * 40 * 50, dtype=torch.uint8).reshape(2, 40, 50, 3)
        return {
            "layout": pixels.permute(0, 3, 1, 2),  # of other strides: some kernels round by them
            "slice": torch.arange(5_000)[10:20],
            "half": torch.full((3_000,), number, dtype=torch.bfloat16),
            "mask": torch.ones(2, 2, dtype=torch.bool),
            "number": torch.tensor(number),
            "empty": torch.empty(0, 4),
            "array": np.full((60, 70), number),
            "small": np.arange(3),
        }

    with WorkerPool(content, 1) as pool:
        for number, received in enumerate(pool.map(range(3))):
            for name, expected in content(number).items():
                value = received[name]
                if isinstance(expected, torch.Tensor):
                    assert isinstance(value, torch.Tensor)
                    torch.testing.assert_close(value, expected, rtol=0, atol=0)
                    assert value.stride() == expected.stride()
                    value.fill_(0)  # it is this process's to change
                else:
                    np.testing.assert_array_equal(value, expected)


def shared_memory() -> int:
    """Bytes of shared memory that this process has mapped and used."""
    return int(psutil.Process().memory_info().shared)


def test_a_result_holds_no_file_open_and_its_memory_is_free_once_it_is_dropped() -> None:
    megabytes = 1 << 20

    def full(number: int) -> torch.Tensor:
        return torch.full((8 * megabytes,), number, dtype=torch.uint8)

    with WorkerPool(full, 1, ahead=1) as pool:
        next(pool.map([0]))
        gc.collect()
        files, memory = psutil.Process().num_fds(), shared_memory()
        kept = [tensor.add_(1) for tensor in pool.map(range(6))]
        assert psutil.Process().num_fds() == files
        assert shared_memory() - memory > 40 * megabytes
        del kept
        gc.collect()
        assert shared_memory() - memory < 16 * megabytes


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_comes_out_as_itself_after_the_results_before_it(workers: int) -> None:
    def fail(number: int) -> int:
        if number == 3:
            raise MmebError("The third is broken.")
        return number

    with WorkerPool(fail, workers) as pool:
        results = pool.map(range(9))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(MmebError, match=r"^The third is broken\.$"):
            next(results)
        assert list(pool.map([4, 5])) == [4, 5]


def test_a_bug_keeps_its_type_and_tells_where_in_the_worker_it_was() -> None:
    def bug(number: int) -> NoReturn:
        raise ZeroDivisionError(number)

    with WorkerPool(bug, 1) as pool, pytest.raises(ZeroDivisionError) as caught:
        list(pool.map([7]))
    assert caught.value.args == (7,)
    assert "in bug" in caught.value.__notes__[0]


def test_an_error_and_a_result_that_cannot_be_sent_are_told_all_the_same() -> None:
    class LocalError(Exception):
        pass

    def fail(number: int) -> object:
        if number:
            raise LocalError("of a class that only the worker has")
        return lambda: None

    with WorkerPool(fail, 1) as pool:
        with pytest.raises(RuntimeError, match="only the worker has"):
            list(pool.map([1]))
        with pytest.raises((AttributeError, TypeError, RuntimeError), match="pickle"):
            list(pool.map([0]))


@pytest.mark.parametrize(
    ("number", "error", "sentence"),
    [
        (signal.SIGKILL, WorkerDiedError, r"worker process .* was killed \(SIGKILL\).*fewer --workers take less"),
        (signal.SIGBUS, SharedMemoryError, r"shared memory \(.*bus error\).*--batch-size"),
    ],
)
def test_how_a_worker_died_is_said(number: signal.Signals, error: type[MmebError], sentence: str) -> None:
    def die(work: int) -> int:
        if work == 5:
            faulthandler.disable()  # pytest's, which prints every thread
            os.kill(os.getpid(), number)
        return work

    with WorkerPool(die, 2) as pool:
        with pytest.raises(error, match=sentence):
            list(pool.map(range(20)))
        assert list(pool.map(range(5))) == list(range(5))  # by new workers


def test_a_worker_that_ends_by_itself_is_told_by_its_exit_code() -> None:
    with WorkerPool(os._exit, 1) as pool, pytest.raises(WorkerDiedError, match="exit code 3"):
        list(pool.map([3]))


def test_a_result_for_which_there_is_no_room_is_told_apart() -> None:
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # of a file, anonymous memory included
    try:
        with WorkerPool(np.zeros, 1) as pool, pytest.raises(SharedMemoryError, match="shared memory"):
            list(pool.map([10_000]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_workers_leave_signals_to_this_process() -> None:
    with WorkerPool(process, 1) as pool:
        (worker,) = pool.map([0])
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(worker, number)
        assert list(pool.map([0])) == [worker]


@pytest.mark.parametrize("end", ["pool.close()", "del pool", "sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_however_the_parent_ends_its_workers_end_and_nothing_is_left(end: str) -> None:
    code = (
        "import os, signal, sys, time, torch; from mmeb.runtime.workers import WorkerPool\n"
        "def work(number):\n"
        "    if number: time.sleep(60 if number == 2 else 0.5)\n"
        "    return torch.zeros(100_000), os.getpid()\n"
        "pool = WorkerPool(work, 2)\n"
        "other = WorkerPool(work, 1)\n"
        f"print(*[pid for each in (pool, other) for _, pid in each.map([0, 0, 0])], flush=True)\n"
        f"next(pool.map([0, {1 if 'KILL' in end else 2}]))\n"
        f"{end}\n"
        "other.close()\n"
    )
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = {int(pid) for pid in parent.stdout.readline().split()}
        assert workers
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in workers):
        assert time.monotonic() - started < 40
        time.sleep(0.05)
    named = [path.name for path in Path("/dev/shm").iterdir()]
    assert not [name for name in named if any(f"_{pid}_" in name for pid in {parent.pid, *workers})]
