"""Whether a model fits before it is loaded."""

from pathlib import Path

import psutil
import torch

from mmeb.errors import MmebError

_CGROUP = Path("/sys/fs/cgroup")


def check_memory(name: str, parameters: int, dtype: torch.dtype, device: torch.device | str) -> str:
    """Say what a model's weights need, in one line.

    `parameters` counts their numbers. `device` is "auto" for all GPUs and the CPU together. Raises MmebError where the
    weights alone do not fit into what is free.
    """
    needed = parameters * dtype.itemsize
    free = available(device)
    kind = str(dtype).removeprefix("torch.")
    line = (
        f"{name}: {parameters / 1e6:,.1f} M parameters, {_size(needed)} in {kind}; {_size(free)} are free on {device}"
    )
    if needed > free:
        smaller = "" if dtype.itemsize < 4 else "--dtype bfloat16, "
        raise MmebError(
            f"There is too little memory for {name}: its weights take {_size(needed)} in {kind}, and {device} has "
            f"{_size(free)} free; take {smaller}another --device, or a smaller model."
        )
    return line


def available(device: torch.device | str) -> int:
    """The free memory of a device in bytes; "auto" is all GPUs and the CPU together."""
    if device == "auto":
        gpus = sum(torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count()))
        return gpus + _available_cpu()
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(torch.device(device))[0]
    return _available_cpu()


def _available_cpu() -> int:
    """What the machine has free, and no more than the container that this process runs in."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
