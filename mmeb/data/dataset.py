"""The rows of a task as unique items to embed, and which queries are ranked against which candidates."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmeb.data.images.image import ImageRef
from mmeb.data.images.index import canonical
from mmeb.data.images.store import ImageStore
from mmeb.data.item import Item, Role
from mmeb.data.part import DataSource, Part, Source
from mmeb.data.rows import Codes, Rows, Side, factorize, read_rows
from mmeb.data.source import source_of
from mmeb.errors import MmebError
from mmeb.tasks import Modality, Task


@dataclass(frozen=True)
class EvalDataset:
    """The unique items of one task and who is ranked against whom.

    `query_ids` is int32 (n_rows,), indices into `queries`. `candidate_ids` is int32 (n_rows, width), indices into
    `candidates`, padded with -1 behind a row's last candidate; column 0 is the ground truth. `fingerprint` is a hash
    over the content of the rows and the bytes of the images' names, so that equal data has an equal fingerprint
    wherever it lies. `notes` are plain sentences on oddities of the data, for the result's provenance.
    """

    task: str
    queries: list[Item]
    candidates: list[Item]
    query_ids: NDArray[np.int32]
    candidate_ids: NDArray[np.int32]
    source: DataSource
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return len(self.query_ids)

    def head(self, n_rows: int) -> "EvalDataset":
        """The first `n_rows` rows, with the items that they use and a note that says so (`--limit`)."""
        if n_rows >= self.n_rows:
            return self
        queries, query_ids = _used(self.queries, self.query_ids[:n_rows])
        candidates, candidate_ids = _used(self.candidates, self.candidate_ids[:n_rows])
        return replace(
            self,
            queries=queries,
            candidates=candidates,
            query_ids=query_ids,
            candidate_ids=candidate_ids,
            fingerprint=f"{self.fingerprint}:{n_rows}",
            notes=[*self.notes, f"only the first {n_rows} of {self.n_rows} rows were used"],
        )


def _used(items: list[Item], ids: NDArray[np.int32]) -> tuple[list[Item], NDArray[np.int32]]:
    """The items that `ids` name, and `ids` renumbered to them; -1 stays."""
    kept = np.unique(ids[ids >= 0])
    renumbered = np.searchsorted(kept, ids).astype(np.int32)
    return [items[position] for position in kept], np.where(ids < 0, np.int32(-1), renumbered)


def load_eval(task: Task, source: Source) -> EvalDataset:
    """The data of a task: the benchmark's from `source`, a custom task's from the files that it names.

    Raises MmebError, naming task, row and file, for malformed rows, and for images that are missing or leave their
    folder.
    """
    source, rows, images = open_task(task, source)
    queries = _unique(task, rows.query, Role.QUERY, images, lambda position: position)
    candidates = _unique(task, rows.candidate, Role.CANDIDATE, images, rows.row_of)
    candidate_ids = rows.as_matrix(candidates.ids)
    return EvalDataset(
        task=task.name,
        queries=queries.items,
        candidates=candidates.items,
        query_ids=queries.ids,
        candidate_ids=candidate_ids,
        source=source.describe(),
        fingerprint=_fingerprint(queries, candidates, candidate_ids),
        notes=_notes(task, queries, candidates, candidate_ids),
    )


def open_task(task: Task, source: Source) -> tuple[Source, Rows, ImageStore]:
    """Where a task's data is, its rows and the store of its images."""
    source, part = source_of(task, source), Part.of_task(task)
    return source, read_rows(source.row_files(part), task), source.images(part)


@dataclass(frozen=True)
class _Unique:
    """Distinct items in the order in which they first appear, `names` of their images, and the `ids` (n,) of all."""

    items: list[Item]
    names: list[str]
    ids: Codes


def _unique(task: Task, side: Side, role: Role, store: ImageStore, row_of: Callable[[int], int]) -> _Unique:
    plain_names = [canonical(path) for path in side.paths]
    images: dict[int, ImageRef | None] = {}
    known: dict[ImageRef, int] = {}
    merged = np.arange(len(side.paths), dtype=np.int64)  # two paths of one image become one
    first = pd.Series(side.path_codes).drop_duplicates()  # the distinct codes, by where each first appears
    for position, code in zip(first.index.tolist(), first.tolist(), strict=True):
        path = side.paths[code]
        image = store.get(path, f"{task.name}, row {row_of(position)}") if path else None
        merged[code] = known.setdefault(image, code) if image is not None else code
        images[code] = image
    ids, pairs = factorize(side.prompt_codes.astype(np.int64) * len(side.paths) + merged[side.path_codes])
    unique: dict[Item, int] = {}
    item_of, names = [], []
    for pair in pairs.tolist():
        prompt, code = divmod(pair, len(side.paths))
        try:
            item = Item.from_prompt(side.prompts[prompt], images[code], role)
        except MmebError as error:
            position = int(np.argmax(side.prompt_codes == prompt))
            raise MmebError(f"{task.name}, row {row_of(position)}: {error}") from None
        if item not in unique:  # a prompt that was given its placeholder may equal one that had it
            names.append(plain_names[code])
        item_of.append(unique.setdefault(item, len(unique)))
    return _Unique(list(unique), names, np.array(item_of, np.int32)[ids])


def _fingerprint(queries: _Unique, candidates: _Unique, candidate_ids: Codes) -> str:
    """SHA-256 over the rows' strings and image names; the same wherever the data lies, and in whatever files."""
    digest = hashlib.sha256()
    for side in (queries, candidates):
        strings = [(item.prompt, name) for item, name in zip(side.items, side.names, strict=True)]
        digest.update(json.dumps(strings).encode())
    digest.update(np.array(candidate_ids.shape, "<i8").tobytes())
    digest.update(queries.ids.astype("<i4").tobytes())
    digest.update(candidate_ids.astype("<i4").tobytes())
    return digest.hexdigest()


def _notes(task: Task, queries: _Unique, candidates: _Unique, candidate_ids: Codes) -> list[str]:
    """Sentences on what is odd in the data."""
    by_side = (
        _oddities("queries", queries.items, task.query_instruction, task.query),
        _oddities("candidates", candidates.items, task.target_instruction, task.target),
    )
    notes = [note for notes in zip(*by_side, strict=True) for note in notes if note]
    if copies := int((candidate_ids[:, 1:] == candidate_ids[:, :1]).any(axis=1).sum()):
        rows = len(candidate_ids)
        notes.append(f"{copies} of {rows} rows list a copy of the ground truth among the other candidates")
    return notes


def _oddities(name: str, items: list[Item], instruction: str, modality: Modality) -> list[str]:
    """A sentence, or an empty string, for each kind of oddity."""
    counts = {
        "have another instruction than the registry's": sum(item.instruction != instruction for item in items),
        "have no image, although the task's have": sum(item.image is None for item in items) * modality.has_image,
        "are empty" if name == "candidates" else "are an instruction without text or image": sum(
            item.image is None and not item.text.strip() for item in items
        ),
    }
    return [f"{count} of {len(items)} unique {name} {what}" if count else "" for what, count in counts.items()]
