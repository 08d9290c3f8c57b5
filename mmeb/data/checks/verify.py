"""Check that a task's data is complete: every image there, no candidate twice."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from mmeb.data.dataset import open_task
from mmeb.data.images.image import ImageRef, MissingImage
from mmeb.data.part import Source
from mmeb.errors import MmebError
from mmeb.tasks import Task


@dataclass(frozen=True)
class Report:
    """What was found in one subset.

    `error` is the sentence on rows that can't be read, everything else is then empty. `missing` and `broken` are image
    paths. `duplicates` counts rows that list some candidate twice, `copies` those that list the ground truth again.
    """

    task: str
    rows: int = 0
    candidates: tuple[int, int] = (0, 0)  # of the rows with the fewest and with the largest number
    images: int = 0
    duplicates: int = 0
    copies: int = 0
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return not (self.missing or self.broken or self.error)


def verify(task: Task, source: Source, *, decode: bool = False) -> Report:
    """Look for every image that the rows name; with `decode`, open each as well."""
    try:
        _, rows, store = open_task(task, source)
        images = [store.find(path, task.name) for path in rows.image_paths()]
    except MmebError as error:
        return Report(task.name, error=str(error))
    ids = rows.as_matrix(rows.candidate.pairs())
    ordered = np.sort(ids, axis=1)
    there = [image for image in images if not isinstance(image, MissingImage)]
    broken = [image.key for image in tqdm(there, desc=task.name, disable=None) if not _opens(image)] if decode else []
    return Report(
        task=task.name,
        rows=len(rows.lengths),
        candidates=(int(rows.lengths.min()), int(rows.lengths.max())),
        images=len(images),
        duplicates=int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(axis=1).sum()),
        copies=int((ids[:, 1:] == ids[:, :1]).any(axis=1).sum()),
        missing=tuple(image.path for image in images if isinstance(image, MissingImage)),
        broken=tuple(broken),
    )


def _opens(image: ImageRef) -> bool:
    try:
        image.decode()
    except MmebError:
        return False
    return True
