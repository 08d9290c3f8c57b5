"""A run's failures as one HTML page that needs nothing but itself."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmeb.data.dataset import EvalDataset, load_eval
from mmeb.data.images.image import ImageRef
from mmeb.data.part import Source
from mmeb.data.source import open_source
from mmeb.errors import MmebError
from mmeb.files import write_text
from mmeb.pages import render
from mmeb.report.gallery import Gallery, gallery
from mmeb.report.thumbnails import Thumbnail, thumbnail
from mmeb.results.averages import averages, coverage, mean_or_coverage, one_decimal, percent
from mmeb.results.schema import TaskResult
from mmeb.results.store import RESULTS_FILE, RUN_FILE, RunFolder
from mmeb.tasks import GROUP_TITLES, PRIMARY_METRIC, TASKS, MetaTask, Task, get_tasks

EXAMPLES = 20
_LONGEST_TEXT = 400  # characters of a text on the page


@dataclass(frozen=True)
class TaskPage:
    """What the page shows of one task."""

    task: Task
    result: TaskResult
    gallery: Gallery

    @property
    def score(self) -> float:
        return percent(self.result.metrics[PRIMARY_METRIC])


def write_report(
    run: Path,
    output: Path,
    *,
    data: str | None = None,
    tasks: str | None = None,
    examples: int = EXAMPLES,
    offline: bool = False,
    progress: bool = False,
) -> list[str]:
    """Write the page of the run folder `run` to `output`; return the names of the tasks asked for that it lacks.

    `data` is where the run's data lies now, by default where the run took it from; `tasks` are by default all that
    are done. Raises MmebError where there is no run, no such task in it, or the data is not what was scored.
    """
    folder = RunFolder(run.parent if run.name == RESULTS_FILE else run)
    recorded = _recorded(folder)
    identity = recorded["identity"]
    selected = get_tasks(tasks) if tasks else list(TASKS)
    done = {task: result for task in selected if (result := folder.read_task(task.name)) is not None}
    if not done:
        named = f" of {tasks}" if tasks else ""
        raise MmebError(f"{folder.path} has no finished task{named}.")
    source = _source(identity, data, offline)
    pages = []
    for task, result in tqdm(done.items(), desc="tasks", unit="task", disable=None if progress else True):
        dataset, ranks = _dataset(task, result, source, identity.get("limit")), folder.read_ranks(task.name)
        if len(ranks) != dataset.n_rows or ranks.predicted.max() >= dataset.candidate_ids.shape[1]:
            raise MmebError(f"{task.name}: the ranks are not of this data; run the task again.")
        pages.append(TaskPage(task, result, gallery(ranks, dataset, examples)))
    write_text(output, _html(pages, recorded))
    return [task.name for task in selected if task not in done] if tasks else []


def _recorded(folder: RunFolder) -> dict[str, Any]:
    recorded = folder.recorded()
    if recorded is None:
        raise MmebError(f"{folder.path} is no run folder; `mmeb run` makes one.")
    identity = recorded.get("identity", {})
    if (
        "name" not in identity.get("model", {})
        or not {"kind", "repository", "revision"} <= identity.get("data", {}).keys()
    ):
        raise MmebError(f"{folder.path / RUN_FILE} does not say what was run on which data; run it again with --fresh.")
    return recorded


def _source(identity: Mapping[str, Any], data: str | None, offline: bool) -> Source:
    if data is not None:
        return open_source(data, offline=offline)
    kind, repository = identity["data"]["kind"], identity["data"]["repository"]
    if kind == "folder" or (kind == "demo" and Path(repository).is_dir()):
        return open_source(repository)
    return open_source(kind, revision=identity["data"]["revision"], offline=offline)


def _dataset(task: Task, result: TaskResult, source: Source, limit: int | None) -> EvalDataset:
    dataset = load_eval(task, source)
    if limit is not None:
        dataset = dataset.head(limit)
    scored = result.provenance.get("data", {}).get("fingerprint")
    if scored != dataset.fingerprint:
        raise MmebError(
            f"{task.name}: the data in {dataset.source.repository} is not what the run was scored on; "
            "name the run's data with --data."
        )
    return dataset


def _html(pages: Sequence[TaskPage], recorded: Mapping[str, Any]) -> str:
    """The page; `recorded` is the run's `run.json`."""
    scores = {page.task.name: page.score for page in pages}
    means = averages(scores)
    shown = [group for group in GROUP_TITLES if coverage(scores, group)[0]]
    values = {
        "model": recorded["identity"]["model"],
        "data": recorded["identity"]["data"],
        "limit": recorded["identity"].get("limit"),
        "started": recorded.get("started", ""),
        "groups": {GROUP_TITLES[group]: mean_or_coverage(means[group], scores, group) for group in shown},
        "meta_tasks": [meta for meta in MetaTask if any(page.task.meta_task is meta for page in pages)],
        "titles": GROUP_TITLES,
        "pages": pages,
        "picture": _picture,
        "shorten": _shorten,
        "one_decimal": one_decimal,
        "percent": lambda value: one_decimal(percent(value)),
    }
    return render("mmeb.report", values)


@functools.lru_cache(maxsize=256)  # a candidate that is often retrieved is decoded once
def _picture(image: ImageRef | None) -> Thumbnail | None:
    return None if image is None else thumbnail(image)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1].rstrip() + "…"
