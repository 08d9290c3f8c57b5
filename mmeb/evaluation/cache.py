"""Embeddings of a run that has not ended, so that a killed run loses little."""

import hashlib
import shutil
import time
import uuid
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmeb.data.item import Item
from mmeb.files import replacing

_KEY_BYTES = 16


def item_key(item: Item) -> bytes:
    """A digest of everything in the item that its embedding may depend on; the image by its reference."""
    image = f"{item.image.key}\0{item.image.stamp()}" if item.image else ""
    parts = (item.role, item.prompt, item.instruction, item.text, image)
    return hashlib.blake2b("\0\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


class VectorCache:
    """Vectors by item, in files that appear complete or not at all; a folder for each task of the run.

    They belong to one run, hence to one model and one way of preprocessing: the key is the item alone. Of several
    processes each adds what it encodes; the main one reads, and makes one file of a task that ends.
    """

    def __init__(self, folder: Path, *, seconds: float = 20.0) -> None:
        """Use what an interrupted run left in `folder`. New vectors are written every `seconds` and by `flush`."""
        self._folder = folder
        self._seconds = seconds
        self._task = ""
        self._pending: dict[bytes, NDArray[np.float32]] = {}
        self._flushed = time.monotonic()

    @cached_property
    def _places(self) -> dict[bytes, tuple[Path, int]]:
        """In which file, and which row of it, an item's vector is."""
        places: dict[bytes, tuple[Path, int]] = {}
        for chunk in sorted(self._folder.glob("*/*.safetensors")):
            try:
                with safe_open(chunk, framework="numpy") as file:
                    keys = file.get_tensor("keys")
            except (SafetensorError, OSError):
                chunk.unlink(missing_ok=True)
                continue
            places.update((key.tobytes(), (chunk, row)) for row, key in enumerate(keys))
        return places

    def begin(self, task: str) -> None:
        """The vectors that are added from now on are this task's."""
        self._task = task
        self._pending = {}
        self._flushed = time.monotonic()

    def load(self, keys: Sequence[bytes], out: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Write the known vectors into the rows of `out`, float32 (n, dim).

        Returns two masks (n,): the rows that another task has encoded, and those that this task has before a break.
        """
        elsewhere, here = np.zeros((2, len(keys)), dtype=np.bool_)
        by_chunk: dict[Path, list[tuple[int, int]]] = {}
        for row, key in enumerate(keys):
            if key in self._places:
                chunk, position = self._places[key]
                by_chunk.setdefault(chunk, []).append((row, position))
        for chunk, places in by_chunk.items():
            rows, positions = np.array(places).T
            first, last = int(positions.min()), int(positions.max())
            with safe_open(chunk, framework="numpy") as file:
                out[rows] = file.get_slice("vectors")[first : last + 1][positions - first]
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
        pending, self._pending = self._pending, {}
        if pending:
            self._write(list(pending), np.stack(list(pending.values())))

    def finish(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> None:
        """Keep all that the task encoded, vectors (n, dim), in one file, instead of what was written on the way."""
        parts = list((self._folder / self._task).glob("*.safetensors"))
        if len(keys):
            chunk = self._write(keys, vectors)
            self._places.update((key, (chunk, row)) for row, key in enumerate(keys))
        for part in parts:
            part.unlink(missing_ok=True)

    def _write(self, keys: Sequence[bytes], vectors: NDArray[np.float32]) -> Path:
        # A name that nobody else has: other processes write here too, and those of an interrupted run did.
        chunk = self._folder / self._task / f"{uuid.uuid4().hex}.safetensors"
        rows = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, _KEY_BYTES)
        with replacing(chunk) as temporary:
            save_file({"keys": rows, "vectors": np.ascontiguousarray(vectors)}, temporary)
        return chunk

    def remove(self) -> None:
        """Delete the folder: the run has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)
