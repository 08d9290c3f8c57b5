"""Seconds of a piece of work, and of several that take turns, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable, Mapping


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turns(ways: Mapping[str, Callable[[], object]], turns: int, *, warm_up: int = 0) -> dict[str, list[float]]:
    """The seconds of each way in each turn, the first `warm_up` turns left out."""
    taken = [{name: seconds(way) for name, way in ways.items()} for _ in range(warm_up + turns)][warm_up:]
    return {name: [turn[name] for turn in taken] for name in ways}
