"""The same work in several processes of one process group, as a launcher would start them."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

import torch.distributed as dist

PATIENCE = 120  # seconds until a process that hangs is a failure

# Imported once, by the process that the others are forked from: it is most of the time that they take.
_PRELOAD = [
    "mmeb.models.adapters.vlm2vec",
    "mmeb.training.step",
    "mmeb.training.loop",
    "peft",
]


def forked(size: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(rank)` returns in each process; the exception where it raised one, the exit code where it died."""
    context, port, started = multiprocessing.get_context("fork"), _free_port(), []
    for rank in range(size):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(rank, size, port, work, there))
        process.start()
        there.close()
        started.append((process, here))
    outcomes: list[Any] = []
    for process, here in started:
        try:
            outcomes.append(here.recv() if here.poll(PATIENCE) else TimeoutError())
        except EOFError:
            process.join(PATIENCE)
            outcomes.append(process.exitcode)
    for process, _ in started:
        process.kill()
    return outcomes


def spawned(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What `function(*arguments)` returns in each process, by rank.

    The processes come from a clean one: autograd does not survive the fork of a process that has used it.
    """
    context, port = multiprocessing.get_context("forkserver"), _free_port()
    context.set_forkserver_preload(_PRELOAD)
    with ProcessPoolExecutor(size, mp_context=context) as pool:
        running = [pool.submit(_call, rank, size, port, function, arguments) for rank in range(size)]
        return [future.result(PATIENCE) for future in running]


def _answer(rank: int, size: int, port: int, work: Callable[[int], Any], answer: Connection) -> None:
    _launched_as(rank, size, port)
    try:
        outcome = work(rank)
    except Exception as error:
        outcome = error
    answer.send(outcome)
    if dist.is_initialized():
        dist.destroy_process_group()
    os._exit(0)  # none of the test session's own clean-up


def _call(rank: int, size: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    _launched_as(rank, size, port)
    return function(*arguments)


def _launched_as(rank: int, size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
