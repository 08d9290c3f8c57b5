"""A folder of result files as the rows of a leaderboard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mmeb.errors import MmebError
from mmeb.results.averages import averages, coverage, percent
from mmeb.results.layouts import Reading, published_source, read
from mmeb.results.schema import RunResult
from mmeb.results.store import RESULTS_FILE, load_ranks
from mmeb.results.text import plain
from mmeb.results.validation import flagged, is_web_address, validate
from mmeb.tasks import PRIMARY_METRIC, TASKS

DEMO_NOTICE = "Demo results, on generated data: they say that the tools work, not how good a model is."


class Kind(StrEnum):
    """Where a row's numbers come from."""

    VERIFIED = "verified"
    SELF_REPORTED = "self-reported"
    PUBLISHED = "published"


@dataclass(frozen=True)
class Entry:
    """A row: `scores` by task and `means` by group in percent, None where a member is missing.

    `stated` are averages that the file states and that can't be recomputed; `origin` is a published figure's source.
    """

    name: str
    kind: Kind
    scores: Mapping[str, float]
    means: Mapping[str, float | None]
    stated: Mapping[str, float]
    problems: tuple[str, ...]
    origin: str = ""
    url: str | None = None
    size: float | None = None
    backbone: str = ""

    @property
    def averages_only(self) -> bool:
        return not self.scores and bool(self.stated)


@dataclass(frozen=True)
class Board:
    """The rows in the order of the tables, best first; all are demo results, or none is.

    `left_out` are the files of the other kind.
    """

    entries: tuple[Entry, ...]
    left_out: tuple[Path, ...]
    demo: bool = False


def load_board(folder: Path, *, demo: bool = False) -> Board:
    """Read a folder of submissions, of run folders, or one run folder.

    Demo results never stand beside real ones: without `demo` they are left out, with it everything else is. Raises
    MmebError that names every file that can't be read, and every pair of files of one model, and where nothing is left.
    """
    entries: list[Entry] = []
    left_out: list[Path] = []
    unreadable: list[str] = []
    duplicates: list[str] = []
    first: dict[tuple[str, bool], Path] = {}  # by model; one file a model, beside what was published of it
    for file in result_files(folder):
        try:
            reading, ranks = read(file), load_ranks(file)
        except MmebError as error:
            unreadable.append(str(error))
            continue
        if reading.result.is_demo != demo:
            left_out.append(reading.path)
            continue
        entry = to_entry(reading, [*validate(reading, ranks, partial=True, demo=demo), *flagged(reading)], ranks)
        entries.append(entry)
        earlier = first.setdefault((entry.name, entry.kind is Kind.PUBLISHED), reading.path)
        if earlier is not reading.path:
            duplicates.append(
                f"{earlier} and {reading.path} are both of the model {entry.name!r}; remove one or rename it."
            )
    if problems := [*unreadable, *duplicates]:
        raise MmebError(f"{len(problems)} of the result files in {folder} can't be used: {' '.join(problems)}")
    if not entries:
        if demo:
            raise MmebError(f"{folder} holds no demo results.")
        raise MmebError(f"{folder} holds only demo results, which never enter the tables; --demo builds their board.")
    return Board(tuple(sorted(entries, key=_place)), tuple(left_out), demo)


def result_files(folder: Path) -> list[Path]:
    """The result files of a folder: a run folder has one, else each `*.json` and each run folder's in it."""
    if not folder.is_dir():
        raise MmebError(f"There is no folder {folder} with result files; `mmeb leaderboard submit` fills one.")
    if (folder / RESULTS_FILE).is_file():
        return [folder / RESULTS_FILE]
    files = sorted([*folder.glob("*.json"), *folder.glob(f"*/{RESULTS_FILE}")])
    if not files:
        raise MmebError(f"{folder} holds no result files; `mmeb leaderboard submit` writes them.")
    return files


def to_entry(reading: Reading, problems: Iterable[str], ranks: Iterable[str]) -> Entry:
    """A reading as a row.

    A task of which only a part of the queries was scored does not count as scored. Of the metadata, only what is plain
    text or a web address gets through.
    """
    result, problems = reading.result, tuple(problems)
    scores = {
        task.name: percent(result.tasks[task.name].metrics[PRIMARY_METRIC])
        for task in TASKS
        if task.name in result.tasks and result.tasks[task.name].num_pred == result.tasks[task.name].num_data
    }
    name, size = result.metadata.get("model_name"), result.metadata.get("model_size")
    url, backbone = result.metadata.get("url"), result.metadata.get("model_backbone")
    return Entry(
        name=(plain(name) if isinstance(name, str) else "") or plain(reading.path.stem),
        kind=_kind(result, problems, set(ranks)),
        scores=scores,
        means=averages(scores),
        stated=reading.stated if not scores else {},
        problems=problems,
        origin=published_source(result),
        url=url if isinstance(url, str) and is_web_address(url) else None,
        size=float(size) if isinstance(size, int | float) and not isinstance(size, bool) and 0 < size < 1e6 else None,
        backbone=plain(backbone) if isinstance(backbone, str) else "",
    )


def _kind(result: RunResult, problems: tuple[str, ...], ranked: set[str]) -> Kind:
    if published_source(result):
        return Kind.PUBLISHED
    if result.tasks and not problems and result.tasks.keys() <= ranked:
        return Kind.VERIFIED
    return Kind.SELF_REPORTED


def _place(entry: Entry) -> tuple[bool, float, int, float, str]:
    overall = entry.means["overall"]
    done, _ = coverage(entry.scores)
    return overall is None, -(overall or 0), -done, -entry.stated.get("overall", 0), entry.name
