"""Several processes of one process group, forked from the test: what each of them returns or raises."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch.distributed as dist

PATIENCE = 60  # seconds until a process that hangs is a failure


def ranks(size: int, work: Callable[[int], Any]) -> list[Any]:
    """What `work(rank)` returns in each process; the exception where it raised one, the exit code where it died."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    started = []
    for rank in range(size):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_rank, args=(rank, size, port, work, there))
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


def _rank(rank: int, size: int, port: int, work: Callable[[int], Any], answer: Connection) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        outcome = work(rank)
    except Exception as error:
        outcome = error
    answer.send(outcome)
    if dist.is_initialized():
        dist.destroy_process_group()
    os._exit(0)  # none of the test session's own clean-up
