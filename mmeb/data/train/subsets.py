"""The subsets that may be trained on, and what a source of them is."""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmeb.data.images.store import ImageStore
from mmeb.data.source import DataSource
from mmeb.errors import MmebError
from mmeb.tasks import TASKS
from mmeb.tasks.train_subsets import SPLITS

# Data sets that early revisions of MMEB-train held by mistake.
_WITHDRAWN = {"cifar100", "fashioniq", "imageneta", "imagenetr"}


class TrainSource(ABC):
    """Rows and images by subset."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The subsets that it is to have."""

    @abstractmethod
    def describe(self) -> DataSource:
        """Where the data is from, for the manifest."""

    @abstractmethod
    def prepare(self, subsets: Sequence[str], split: str) -> None:
        """Fetch what these subsets need and is not here yet."""

    @abstractmethod
    def row_files(self, subset: str, split: str) -> list[Path]:
        """The files with a subset's rows, shards in order. Raises MmebError where there are none."""

    @abstractmethod
    def images(self, subset: str) -> ImageStore:
        """The images that the rows name. Raises MmebError where there is no place that could hold them."""


def check_split(split: str) -> None:
    """Raise MmebError for a split that MMEB-train does not have."""
    if split not in SPLITS:
        raise MmebError(f"There is no split {split!r}: MMEB-train has {' and '.join(SPLITS)}.")


def split_files(files: Iterable[str], split: str) -> list[str]:
    """Those of a subset's files that hold a split, shards in order; none where a shard is missing."""
    chosen = sorted(file for file in files if file.startswith(f"{split}-") and file.endswith(".parquet"))
    parts = chosen[0].removesuffix(".parquet").rpartition("-of-")[2] if chosen else ""
    return chosen if not parts.isdigit() or len(chosen) == int(parts) else []


def choose_subsets(names: Iterable[str], sources: Iterable[TrainSource]) -> list[tuple[str, TrainSource]]:
    """The subsets that a user names, `all` being every one, each with the source that has it.

    Raises MmebError for a name that no source has, with the reason where the benchmark only evaluates on it.
    """
    known = {name: source for source in sources for name in source.names}
    wanted = dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    if not wanted:
        raise MmebError("No training subset was named: --subsets takes all, or names by commas.")
    for name in wanted:
        if name not in known and name != "all":
            raise MmebError(_refusal(name, known))
    chosen = known if "all" in wanted else wanted
    return [(name, known[name]) for name in known if name in chosen]


def _refusal(name: str, known: Iterable[str]) -> str:
    known = list(known)
    plain = {plain_name(other): other for other in known}
    if plain_name(name) in plain:
        return f"There is no training subset {name!r}: did you mean {plain[plain_name(name)]}?"
    note = "; early revisions of MMEB-train held it by mistake" if plain_name(name) in _WITHDRAWN else ""
    if any(plain_name(name) == plain_name(task.name) and not task.in_distribution for task in TASKS):
        return f"{name} is out of distribution in MMEB: models are scored on it and may not be trained on it{note}."
    if note:
        return f"{name} is not one of MMEB-train's 20 subsets{note}."
    near = [plain[match] for match in difflib.get_close_matches(plain_name(name), plain, n=3)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}."
    return f"There is no training subset {name!r}: {hint}"


def plain_name(name: str) -> str:
    """A name in lower case, without hyphens."""
    return name.lower().replace("-", "").replace("_", "")
