"""The subsets that may be trained on, and where `--data` has them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmeb.data.hub_source import TRAIN_REPOSITORY, HubSource
from mmeb.data.images.store import Folder, ImageStore
from mmeb.data.part import Source
from mmeb.data.source import FileSource, FolderSource
from mmeb.demo import demo_folder
from mmeb.errors import MmebError
from mmeb.inputs import suggest
from mmeb.tasks import TASKS
from mmeb.tasks.train_subsets import SPLITS, TRAIN_SUBSETS

# Data sets that early revisions of MMEB-train contained by mistake.
_WITHDRAWN = {"cifar100", "fashioniq", "imageneta", "imagenetr"}
_SUFFIXES = {".jsonl", ".parquet"}


def open_train_sources(data: str | Path, *, revision: str | None = None, offline: bool = False) -> dict[str, Source]:
    """Open what `--data` names: `hub`, `demo`, a folder, a user's files, or several of these by commas.

    Returns the source of each subset that the data has or should have. Raises MmebError for what is not there, for a
    subset that is there twice, and for a user's file that is called like a part of the benchmark.
    """
    single = data and Path(data).exists()
    places = [str(data)] if single else [part.strip() for part in str(data).split(",") if part.strip()]
    sources: dict[str, Source] = {}
    for place in places:
        names, source = _open(place, revision, offline)
        if twice := sources.keys() & names:
            raise MmebError(f"{min(twice)} is there twice in --data {data}: name it once, or rename a file.")
        sources.update(dict.fromkeys(names, source))
    if not sources:
        raise MmebError("No training data was named: --data takes hub, demo, a folder, or .jsonl and .parquet files.")
    return sources


def _open(place: str, revision: str | None, offline: bool) -> tuple[Sequence[str], Source]:
    """The subsets of one place, and their source."""
    if place == "hub":
        return TRAIN_SUBSETS, HubSource.open(TRAIN_REPOSITORY, revision, offline=offline)
    path = demo_folder() if place == "demo" else Path(place).expanduser()
    if path.is_dir():
        return TRAIN_SUBSETS, FolderSource.training(path.resolve())
    if path.suffix not in _SUFFIXES:
        raise MmebError(f"There is no folder {path}: --data takes hub, demo, a folder, or .jsonl and .parquet files.")
    if not path.is_file():
        raise MmebError(f"There is no file {path}, which --data names.")
    if _plain(path.stem) in {_plain(name) for task in TASKS for name in (task.name, task.train_subset) if name}:
        raise MmebError(f"{path}: {path.stem} is a name of the benchmark's; rename the file.")
    path = path.resolve()
    # Image paths are relative to the file's folder, also upwards, or absolute.
    return (path.stem,), FileSource("file", path, ImageStore((Folder(path.parent, listing=False),), confined=False))


def check_split(split: str) -> None:
    """Raise MmebError for a split that MMEB-train does not have."""
    if split not in SPLITS:
        raise MmebError(f"There is no split {split!r}: MMEB-train has {' and '.join(SPLITS)}.")


def select_subsets(names: Iterable[str], sources: Mapping[str, Source]) -> dict[str, Source]:
    """Those of the sources' subsets that a user names, `all` being every one.

    Raises MmebError for a name that no source has, with the reason where the benchmark only evaluates on it.
    """
    selected = dict.fromkeys(part.strip() for name in names for part in name.split(",") if part.strip())
    if not selected:
        raise MmebError("No training subset was named: --subsets takes all, or names by commas.")
    for name in selected:
        if name not in sources and name != "all":
            raise MmebError(_refusal(name, list(sources)))
    return {name: source for name, source in sources.items() if "all" in selected or name in selected}


def _refusal(name: str, known: Sequence[str]) -> str:
    exact = next((other for other in known if _plain(other) == _plain(name)), None)
    if exact is not None:
        return f"There is no training subset {name!r}: did you mean {exact}?"
    note = "; early revisions of MMEB-train held it by mistake" if _plain(name) in _WITHDRAWN else ""
    if any(_plain(name) == _plain(task.name) and not task.in_distribution for task in TASKS):
        return f"{name} is out of distribution in MMEB: models are scored on it and may not be trained on it{note}."
    if note:
        return f"{name} is not one of MMEB-train's 20 subsets{note}."
    hint = suggest(name, known, n=3) or f"there are {', '.join(known)}."
    return f"There is no training subset {name!r}: {hint}"


def _plain(name: str) -> str:
    """A name in lower case, without hyphens."""
    return name.lower().replace("-", "").replace("_", "")
