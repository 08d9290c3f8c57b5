"""Embeddings of a run that has not ended, so that a killed run loses little."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmeb.data.item import Item
from mmeb.results.atomic import replacing

_KEY_BYTES = 16


def item_key(item: Item) -> bytes:
    """A digest of everything in the item that its embedding may depend on; the image by its reference."""
    image = f"{item.image.key}\0{item.image.stamp()}" if item.image else ""
    parts = (item.role, item.prompt, item.instruction, item.text, image)
    return hashlib.blake2b("\0\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


class VectorCache:
    """Vectors by item, in chunks that are written aside and renamed; a folder for each task of the run.

    They belong to one run, hence to one model and one way of preprocessing: the key is the item alone.
    """

    def __init__(self, folder: Path, *, seconds: float = 20.0) -> None:
        """Take up what a broken run left in `folder`. New vectors are written every `seconds` and by `flush`."""
        self._folder = folder
        self._seconds = seconds
        self._vectors: dict[bytes, tuple[Path, int]] = {}
        self._task = ""
        self._pending: dict[bytes, NDArray[np.float32]] = {}
        self._flushed = time.monotonic()
        for chunk in sorted(folder.glob("*/*.safetensors")):
            try:
                keys = load_file(chunk)["keys"]
            except (SafetensorError, KeyError, OSError):
                chunk.unlink()
                continue
            self._vectors.update((key.tobytes(), (chunk, row)) for row, key in enumerate(keys))
        self._next = len(self._vectors)

    def begin(self, task: str) -> None:
        """The vectors that are added from now on are this task's."""
        self.flush()
        self._task = task

    def load(self, keys: Sequence[bytes], out: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Write the known vectors into the rows of `out`, float32 (n, dim).

        Returns two masks (n,): the rows that another task has encoded, and those that this task has before a break.
        """
        elsewhere, here = np.zeros((2, len(keys)), dtype=np.bool_)
        by_chunk: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            if key in self._vectors:
                chunk, position = self._vectors[key]
                by_chunk.setdefault(chunk, []).append((row, position))
        for chunk, places in by_chunk.items():
            rows, positions = (list(column) for column in zip(*places, strict=True))
            out[rows] = load_file(chunk)["vectors"][positions]
            (here if chunk.parent.name == self._task else elsewhere)[rows] = True
        return elsewhere, here

    def add(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep the vectors (n, dim) of these items."""
        self._pending.update(zip(keys, vectors, strict=True))
        if time.monotonic() - self._flushed > self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is not yet on disk. Raises MmebError where that fails."""
        self._flushed = time.monotonic()
        if not self._pending:
            return
        keys = np.frombuffer(b"".join(self._pending), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        chunk = self._folder / self._task / f"{self._next:09d}.safetensors"
        with replacing(chunk) as aside:
            save_file({"keys": keys, "vectors": np.stack(list(self._pending.values()))}, aside)
        self._vectors.update((key, (chunk, row)) for row, key in enumerate(self._pending))
        self._next += len(self._pending)
        self._pending.clear()

    def remove(self) -> None:
        """Delete the folder: the run has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
