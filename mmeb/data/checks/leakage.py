"""Evaluation images among training images, found by content: names and folders say nothing."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmeb.data.checks.for_each import for_each
from mmeb.data.checks.signature import NEAR_BITS, Hash, Signature, distance, sign
from mmeb.data.dataset import open_task
from mmeb.data.images.image import ImageRef
from mmeb.data.part import Source
from mmeb.data.train.dataset import TrainSubset
from mmeb.errors import MmebError
from mmeb.tasks import Task


class Match(StrEnum):
    """What two files have in common; the strongest that holds."""

    BYTES = "bytes"
    PIXELS = "pixels"
    NEAR = "near"


@dataclass(frozen=True, order=True)
class Leak:
    """An evaluation image that is also a training image. `bits` is how far apart their hashes are, of 256."""

    task: str
    image: str
    subset: str
    train_image: str
    match: Match
    bits: int = 0


@dataclass(frozen=True)
class LeakageReport:
    """`images` by task and `train_images` were compared; `unreadable` are sentences on those that could not be."""

    images: dict[str, int]
    train_images: int
    leaks: tuple[Leak, ...]
    unreadable: tuple[str, ...]


def find_leakage(
    train: Sequence[TrainSubset],
    tasks: Sequence[Task],
    source: Source,
    *,
    exact: bool = False,
    workers: int | None = None,
    progress: bool = False,
) -> LeakageReport:
    """Compare every image of the training subsets with every image of the tasks.

    Found are files with the same bytes, other files with the same pixels and, unless `exact`, images that look the same
    after recompression and resizing. Crops, mirror images and changed colours are not found. `workers` processes
    decode (None: one per core; 0: this one). Memory grows with the evaluation images only, by about 1 kB each.
    """
    named = []
    for task in tasks:
        _, rows, store = open_task(task, source)
        named += [(task.name, path, store.get(path, task.name)) for path in rows.image_paths()]

    def sign_evaluation(number: int) -> Signature | str:
        return _try_to_sign(named[number][2])

    signed = list(for_each(sign_evaluation, len(named), workers, label="evaluation", progress=progress))
    readable = [
        (task, path, signature)
        for (task, path, _), signature in zip(named, signed, strict=True)
        if isinstance(signature, Signature)
    ]
    unreadable = [signature for signature in signed if isinstance(signature, str)]
    evaluation = _Evaluation.of(readable, exact=exact)
    leaks: list[Leak] = []
    count = 0
    for subset in train:
        paths = _paths(subset)
        if len(paths):
            subset.images.find(paths[0].as_py(), subset.name)  # opens the archive once for all processes
        search = partial(_search, subset, paths, evaluation)
        for result in for_each(search, len(paths), workers, label=subset.name, progress=progress):
            if isinstance(result, str):
                unreadable.append(result)
            else:
                leaks += result
        count += len(paths)
    images = {task.name: sum(name == task.name for name, _, _ in readable) for task in tasks}
    return LeakageReport(images, count, tuple(sorted(leaks)), tuple(unreadable))


def _search(subset: TrainSubset, paths: Any, evaluation: "_Evaluation", number: int) -> list[Leak] | str:
    """The evaluation images that one image of a subset equals, or a sentence where it can't be read."""
    path = paths[number].as_py()
    signature = _try_to_sign(subset.images.find(path, subset.name))
    if isinstance(signature, str):
        return signature
    matches = evaluation.matches(signature).items()
    return [Leak(*evaluation.names[other], subset.name, path, match, bits) for other, (match, bits) in matches]


def _paths(subset: TrainSubset) -> Any:
    """The image paths that a subset's rows name, each once, as an arrow array."""
    rows = subset.rows
    paths = pa.concat_arrays([side.paths for side in (rows.query, rows.positive, rows.negative)]).unique()
    return paths.filter(pc.not_equal(paths, ""))


@dataclass(frozen=True, eq=False)
class _Evaluation:
    """The evaluation images by what they may share with a training image."""

    names: list[tuple[str, str]]  # task and path
    by_file: dict[bytes, list[int]]
    by_pixels: dict[bytes, list[int]]
    hashes: Hash  # (4, n), of those with structure
    hashed: NDArray[np.int64]  # (n,), which those are
    blocks: NDArray[np.uint8]  # (n, 16, 16, 3), theirs

    @classmethod
    def of(cls, found: Sequence[tuple[str, str, Signature]], *, exact: bool) -> "_Evaluation":
        by_file, by_pixels = defaultdict(list), defaultdict(list)
        for number, (_, _, signature) in enumerate(found):
            by_file[signature.file].append(number)
            by_pixels[signature.pixels].append(number)
        pairs = [
            (number, signature.perceptual, signature.blocks)
            for number, (_, _, signature) in enumerate(found)
            if signature.perceptual is not None and not exact
        ]
        return cls(
            [(task, path) for task, path, _ in found],
            dict(by_file),
            dict(by_pixels),
            np.array([perceptual for _, perceptual, _ in pairs], np.uint64).reshape(-1, 4).T.copy(),
            np.array([number for number, _, _ in pairs], np.int64),
            np.array([blocks for _, _, blocks in pairs], np.uint8).reshape(-1, 16, 16, 3),
        )

    def matches(self, signature: Signature) -> dict[int, tuple[Match, int]]:
        """The evaluation images that an image equals, each with the strongest match and the distance in bits."""
        found: dict[int, tuple[Match, int]] = {}
        if signature.perceptual is not None:
            bits = distance(signature.perceptual, self.hashes)
            for row in np.flatnonzero(bits <= NEAR_BITS).tolist():
                if signature.looks_like(self.blocks[row]):
                    found[int(self.hashed[row])] = (Match.NEAR, int(bits[row]))
        found.update((number, (Match.PIXELS, 0)) for number in self.by_pixels.get(signature.pixels, ()))
        found.update((number, (Match.BYTES, 0)) for number in self.by_file.get(signature.file, ()))
        return found


def _try_to_sign(image: ImageRef) -> Signature | str:
    """The signature of an image, or a sentence where it can't be read."""
    try:
        return sign(image)
    except MmebError as error:
        return str(error)
