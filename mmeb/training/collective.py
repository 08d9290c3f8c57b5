"""What one process does for all of them."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from mmeb.errors import MmebError

T = TypeVar("T")


def first_alone(action: Callable[[], T]) -> T:
    """Do something in the first process alone, such as writing a file; every process gets what came of it.

    A mistake of the user's (MmebError) is raised in every process, so that none of them waits for the others.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return action()
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = action()
        except MmebError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    result: T = outcome[0]
    return result
