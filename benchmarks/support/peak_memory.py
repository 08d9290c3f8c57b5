"""Peak memory: of a benchmark's part in a process of its own, with all that it starts, and of a device."""

import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

_PERIOD = 0.1  # seconds between two looks


class Watched(NamedTuple):
    """What a process printed, how long it took, and the peak memory that it and its children had together.

    `gib` is memory that only they have, what they share among them counted once; `file_gib` what one of them has mapped
    of files, libraries above all, which the system may drop and which others may share.
    """

    output: str
    seconds: float
    gib: float
    file_gib: float


def watch(module: str, *arguments: object) -> Watched:
    """Run `python -m MODULE --run ARGUMENTS` to its end; SystemExit where it fails. Linux alone says what is needed."""
    peaks = [0, 0]
    started = time.perf_counter()
    command = [sys.executable, "-m", module, "--run", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        threading.Thread(target=_watch, args=(process.pid, peaks), daemon=True).start()
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    return Watched(output, time.perf_counter() - started, *(peak / 2**20 for peak in peaks))


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float:
    """What a GPU has had allocated since `reset_peak`, in GiB; of the CPU, what this process has ever had."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _watch(pid: int, peaks: list[int]) -> None:
    while psutil.pid_exists(pid):
        try:
            tree = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.Error:
            return
        used = [_kib(member) for member in tree]
        peaks[:] = max(peaks[0], sum(own for own, _ in used)), max(peaks[1], *(files for _, files in used))
        time.sleep(_PERIOD)


def _kib(pid: int) -> tuple[int, int]:
    """KiB of a process: its own and its part of what it shares with its relatives; and of mapped files."""
    try:
        shares = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:  # it has just ended
        return 0, 0
    own = sum(int(value) for value in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+)", shares, re.MULTILINE))
    files = re.search(r"^RssFile:\s+(\d+)", status, re.MULTILINE)
    return own, int(files[1]) if files else 0
