"""Check training data before a run does: what is wrong, what is odd, and what there is."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmeb.data.checks.for_each import for_each
from mmeb.data.images.image import MissingImage
from mmeb.data.images.store import ImageStore
from mmeb.data.part import Part, Source
from mmeb.data.train.rows import Cells, TrainRows, read_train_rows
from mmeb.errors import MmebError
from mmeb.tasks import PLACEHOLDER

_FOREIGN = r"<image>|<\|image_pad\|>|<\|image\|>|\[IMG\]"  # other models' image tokens
_MAX_EXAMPLES = 3  # rows or images that a finding names

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Finding:
    """Something that `count` rows or images have; `examples` are the first few, as sentences."""

    what: str
    count: int
    examples: tuple[str, ...]

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.examples) else ""
        return f"{self.what}: {self.count} ({'; '.join(self.examples)}{more})"


@dataclass(frozen=True)
class Validation:
    """What was found in one subset. A run fails on `errors`, and goes on with `notes`.

    Modalities count rows by what the query, or the first positive, consists of. `positives` and `negatives` are the
    smallest and the largest number in a row. `images` are distinct ones, `decoded` of which were opened.
    """

    name: str
    rows: int = 0
    query: tuple[tuple[str, int], ...] = ()
    target: tuple[tuple[str, int], ...] = ()
    positives: tuple[int, int] = (0, 0)
    negatives: tuple[int, int] = (0, 0)
    targets: int = 0
    images: int = 0
    decoded: int = 0
    errors: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()


def validate(
    name: str,
    source: Source,
    *,
    split: str = "original",
    sample: int | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Validation:
    """Check a subset's rows, and whether their images are there; open all of these, or a random `sample` of them."""
    part = Part.of_subset(name, split)
    try:
        rows = read_train_rows(source.row_files(part), name)
        images = source.images(part)
    except MmebError as error:
        return Validation(name, errors=(Finding("the rows can't be used", 1, (str(error),)),))
    paths, first = _image_paths(rows)
    everything = range(len(paths))
    decoded = frozenset(everything if sample is None else Random(name).sample(everything, min(sample, len(paths))))

    def check(number: int) -> tuple[str, str] | None:
        return _check_image(images, paths[number].as_py(), f"{name}, row {first[number]}", decode=number in decoded)

    checked = for_each(check, len(paths), workers, label=name, progress=progress)
    image_errors = [error for error in checked if error is not None]
    valid = np.flatnonzero((rows.query.counts > 0) & (rows.positive.counts > 0))
    usable = rows.take(valid)
    return Validation(
        name=name,
        rows=len(rows),
        query=_modalities(usable.query),
        target=_modalities(usable.positive),
        positives=_extent(rows.positive.counts),
        negatives=_extent(rows.negative.counts),
        targets=len(np.unique(usable.target_ids)),
        images=len(paths),
        decoded=len(decoded),
        errors=tuple(_findings(_row_errors(rows), name)) + tuple(_image_findings(image_errors)),
        notes=tuple(_findings(_row_notes(rows, usable), name)),
    )


def _row_errors(rows: TrainRows) -> dict[str, Rows]:
    return {
        "rows without a query": np.flatnonzero(rows.query.counts == 0),
        "rows without a positive": np.flatnonzero(rows.positive.counts == 0),
        f"two {PLACEHOLDER} in one text": _rows_where(rows, lambda cells: pc.greater(_placeholders(cells), 1)),
    }


def _row_notes(rows: TrainRows, usable: TrainRows) -> dict[str, Rows]:
    """`usable` are the rows with a query and a positive."""
    return {
        f"an image, but no {PLACEHOLDER} in the text, which then gets one in front": _rows_where(
            rows,
            lambda cells: pc.and_(pc.equal(_placeholders(cells), 0), pc.and_(_has(cells.paths), _has(cells.texts))),
        ),
        f"{PLACEHOLDER} in the text, but no image": _rows_where(
            rows, lambda cells: pc.and_(pc.greater(_placeholders(cells), 0), pc.invert(_has(cells.paths)))
        ),
        f"another model's image token; the one to write is {PLACEHOLDER}": _rows_where(
            rows, lambda cells: pc.match_substring_regex(cells.texts, _FOREIGN)
        ),
        "rows that are there twice": usable.numbers[_repeated(usable)],
        "a negative that is also a positive of its row": _contradictory_rows(rows),
        "all rows have one target, so that a batch has no negatives": (
            usable.numbers[:1] if len(usable) > 1 and not usable.target_ids.any() else usable.numbers[:0]
        ),
    }


def _findings(rows_of: dict[str, Rows], name: str) -> Iterator[Finding]:
    for what, rows in rows_of.items():
        if len(rows):
            yield Finding(what, len(rows), tuple(f"{name}, row {row}" for row in rows[:_MAX_EXAMPLES]))


def _rows_where(rows: TrainRows, holds: Callable[[Cells], Any]) -> Rows:
    """The rows that have a cell for which it holds."""
    found = [_row_numbers(side)[holds(side).to_numpy(zero_copy_only=False)] for side in _sides(rows)]
    return np.unique(np.concatenate(found))


def _sides(rows: TrainRows) -> tuple[Cells, Cells, Cells]:
    return rows.query, rows.positive, rows.negative


def _row_numbers(side: Cells) -> Rows:
    """(n_cells,), the row of each."""
    return np.repeat(np.arange(len(side.counts)), side.counts)


def _placeholders(cells: Cells) -> Any:
    return pc.count_substring(cells.texts, PLACEHOLDER)


def _has(column: Any) -> Any:
    return pc.not_equal(column, "")


def _modalities(side: Cells) -> tuple[tuple[str, int], ...]:
    """How many rows' first cells are of which modality; a placeholder alone is no text."""
    first = side.starts[:-1]
    texts = pc.utf8_trim_whitespace(pc.replace_substring(side.texts.take(first), PLACEHOLDER, ""))
    has_text, has_image = (_has(column).to_numpy(zero_copy_only=False) for column in (texts, side.paths.take(first)))
    names = np.where(has_image, np.where(has_text, "image+text", "image"), "text").tolist()
    return tuple(Counter(names).most_common())


def _extent(counts: Rows) -> tuple[int, int]:
    return int(counts.min()), int(counts.max())


def _repeated(rows: TrainRows) -> Rows:
    """The rows whose query and first positive an earlier row has."""
    query = pd.Series(rows.query.texts.to_pandas() + "\0" + rows.query.paths.to_pandas())
    return np.flatnonzero(pd.DataFrame({"query": pd.factorize(query)[0], "target": rows.target_ids}).duplicated())


def _contradictory_rows(rows: TrainRows) -> Rows:
    """The rows one of whose negatives is also a positive."""
    candidates = np.flatnonzero(rows.negative.counts).tolist()
    positive, negative = rows.positive, rows.negative
    return np.array([row for row in candidates if not set(positive.row(row)).isdisjoint(negative.row(row))], np.int64)


def _image_paths(rows: TrainRows) -> tuple[Any, Rows]:
    """The distinct image paths, and (n,) the first row that names each."""
    paths = pa.concat_arrays([side.paths for side in _sides(rows)])
    owners = np.concatenate([_row_numbers(side) for side in _sides(rows)])
    named = _has(paths)
    codes = paths.filter(named).dictionary_encode()
    first = np.full(len(codes.dictionary), np.iinfo(np.int64).max)
    np.minimum.at(first, codes.indices.to_numpy(), owners[named.to_numpy(zero_copy_only=False)])
    return codes.dictionary, first


def _check_image(images: ImageStore, path: str, origin: str, *, decode: bool) -> tuple[str, str] | None:
    """What is wrong with an image, and the sentence on it."""
    kind = "image paths that are refused"
    try:
        image = images.find(path, origin)
        is_missing = isinstance(image, MissingImage)
        kind = "images that are missing" if is_missing else "images that can't be decoded"
        if is_missing or decode:
            image.decode()
    except MmebError as error:
        return kind, str(error)
    return None


def _image_findings(errors: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    for what in dict.fromkeys(kind for kind, _ in errors):
        sentences = [sentence.rstrip(".") for kind, sentence in errors if kind == what]
        yield Finding(what, len(sentences), tuple(sentences[:_MAX_EXAMPLES]))
