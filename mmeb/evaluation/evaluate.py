"""Score a model on tasks."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from mmeb.data.dataset import EvalDataset, load_eval
from mmeb.data.part import Source
from mmeb.data.source import find_rows, open_source
from mmeb.errors import MmebError
from mmeb.evaluation.cache import VectorCache
from mmeb.evaluation.encode import Encoder
from mmeb.evaluation.provenance import hardware, now, run_identity
from mmeb.evaluation.ranking import rank
from mmeb.evaluation.sanity import check_embeddings
from mmeb.evaluation.verify import quick_check
from mmeb.models.base import EmbeddingModel
from mmeb.models.loading import load_model
from mmeb.results.ranks import Ranks, hit_at_1_ties_for_model, metrics_from_ranks
from mmeb.results.schema import RunResult, TaskResult
from mmeb.results.store import RunFolder
from mmeb.runtime.processes import Processes, joined, own_device
from mmeb.runtime.signals import listening
from mmeb.tasks import Task, get_tasks


def evaluate(
    model: EmbeddingModel | str,
    tasks: str | Task | Iterable[str | Task] = "all",
    data: str | Path = "hub",
    output: str | Path | None = None,
    *,
    revision: str | None = None,
    offline: bool = False,
    limit: int | None = None,
    batch_size: int | str = "auto",
    workers: int | None = None,
    save_embeddings: bool = False,
    fresh: bool = False,
    progress: bool = False,
) -> RunResult:
    """Score `model` on `tasks` and write the run folder `output` (`runs/<model>` by default).

    A second call with the same folder resumes: tasks that are done are not repeated, embeddings of an interrupted task
    are reused. `limit` takes the first rows of each task only. Returns the results of all tasks, custom ones included,
    that are done in the folder.

    Processes that torchrun or accelerate launched, or that are in a process group, all call it with the same arguments:
    they share the encoding, the main process writes, and each gets the results.

    Raises MmebError for a mistake of the user's, for a model that fails its check, and where the folder holds another
    run (`fresh` discards that one); StoppedError after SIGTERM, with all saved that is encoded.
    """
    selected_tasks = get_tasks(tasks)
    with joined() as processes, processes.failing_together():
        if isinstance(model, str):
            device = own_device(processes, None)
            with processes.local_main_first():
                model = load_model(model, device=device, offline=offline)
        folder = RunFolder(Path(output) if output is not None else default_output(model.name))
        if processes.is_main and not fresh:
            revision = revision or _recorded_revision(folder, str(data))
        source = _open(data, processes.broadcast(revision), offline, selected_tasks, processes)
        identity = run_identity(model, source.describe(), limit)
        processes.require_same(identity, "what is run")
        if processes.is_main and not fresh:
            folder.refuse_other(identity)
        run = {
            "identity": identity,
            "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
            "hardware": hardware(model) | {"processes": processes.size},
            "check": quick_check(model),
            "started": now(),
        }
        if processes.is_main:
            folder.open(run, fresh=fresh)
        cache = VectorCache(folder.cache)
        shown = None if progress and processes.is_main else True
        with listening() as stop, Encoder(model, batch_size, workers, progress, cache, processes, stop) as encoder:
            for task in tqdm(selected_tasks, desc="tasks", unit="task", disable=shown):
                _score_task(task, source, encoder, folder, limit, save_embeddings)
        result = None
        if processes.is_main:
            cache.remove()
            result = collect(folder)
            folder.write_results(result)
        return processes.broadcast(result)  # type: ignore[return-value]


def _open(data: str | Path, revision: str | None, offline: bool, tasks: list[Task], processes: Processes) -> Source:
    """The data's source, with all downloads in place; the same commit in all processes."""
    if processes.is_main:
        revision = open_source(data, revision=revision, offline=offline).describe().revision
    revision = processes.broadcast(revision)
    with processes.local_main_first():
        source = open_source(data, revision=revision, offline=offline)
        find_rows(tasks, source)
    return source


def default_output(model_name: str) -> Path:
    """`runs/<model>`, with a hub id's or a folder's name as one path part."""
    return Path("runs") / model_name.rstrip("/").replace("/", "__").lstrip(".")


def collect(folder: RunFolder) -> RunResult:
    """The results of all tasks that are done in a run folder, with its provenance and the leaderboard's metadata."""
    run = folder.recorded()
    if run is None:
        raise MmebError(f"{folder.path} holds no run.")
    identity = run["identity"]
    results = {}
    for task in [task.name for task in get_tasks("all")] + _custom_tasks(folder):
        if (result := folder.read_task(task)) is not None:
            results[task] = result
    model = identity["model"]
    metadata = {
        "model_name": model["name"],
        "model_backbone": model["adapter"],
        "model_size": float(f"{run['parameters'] / 1e9:.3g}"),  # billions, as the leaderboard counts
        "embedding_dimension": model["dim"],
        "data_source": "Self-Reported",
        "report_generated_date": now(),
    }
    provenance = {**identity, **{key: run[key] for key in ("parameters", "hardware", "check", "started")}}
    return RunResult(metadata, results, provenance)


def _custom_tasks(folder: RunFolder) -> list[str]:
    official = {task.name for task in get_tasks("all")}
    done = sorted(path.name.removesuffix(".ranks.parquet") for path in folder.path.glob("*.ranks.parquet"))
    return [name for name in done if name not in official]


def _recorded_revision(folder: RunFolder, data: str) -> str | None:
    """The commit that an interrupted run in this folder was pinned to: a branch may have moved since."""
    recorded = (folder.recorded() or {}).get("identity", {}).get("data", {})
    return recorded.get("revision") if recorded.get("kind") == data else None


def _score_task(
    task: Task, source: Source, encoder: Encoder, folder: RunFolder, limit: int | None, save_embeddings: bool
) -> None:
    processes = encoder.processes
    started = time.perf_counter()
    dataset = load_eval(task, source)
    n_data = dataset.n_rows
    if limit is not None:
        dataset = dataset.head(limit)
    processes.require_same(dataset.fingerprint, f"the data of {task.name}")
    seconds_data = time.perf_counter() - started
    if processes.broadcast(processes.is_main and _is_done(task, dataset, folder, save_embeddings)):
        return
    vectors, statistics = encoder([*dataset.queries, *dataset.candidates], task.name)
    if not processes.is_main:
        return
    queries, candidates = vectors[: len(dataset.queries)], vectors[len(dataset.queries) :]
    embeddings = {
        "queries": check_embeddings(queries, f"{task.name}: the queries"),
        "candidates": check_embeddings(candidates, f"{task.name}: the candidates"),
    }
    started = time.perf_counter()
    ranks = rank(queries, candidates, dataset.query_ids, dataset.candidate_ids)
    seconds = {
        "data": round(seconds_data, 3),
        "preprocess": round(statistics.seconds_preprocess, 3),
        "forward": round(statistics.seconds_forward, 3),
        "encode": round(statistics.seconds_total, 3),
        "rank": round(time.perf_counter() - started, 3),
    }
    encoding = {key: value for key, value in asdict(statistics).items() if not key.startswith("seconds")}
    provenance = {**_data_provenance(dataset), "embeddings": embeddings, "encoding": encoding, "seconds": seconds}
    if save_embeddings:
        folder.write_embeddings(task.name, query=queries, candidate=candidates)
    folder.write_task(task_result(task.name, ranks, n_data, provenance), ranks)


def _is_done(task: Task, dataset: EvalDataset, folder: RunFolder, save_embeddings: bool) -> bool:
    result = folder.read_task(task.name)
    return (
        result is not None
        and result.provenance["data"]["fingerprint"] == dataset.fingerprint
        and (folder.has_embeddings(task.name) or not save_embeddings)
    )


def task_result(task: str, ranks: Ranks, n_data: int, provenance: dict[str, Any]) -> TaskResult:
    """The metrics of a task from its ranks; `n_data` rows it has in all."""
    ties = {
        "ties": int((ranks.tied > 0).sum()),
        "hit@1_ties_for_model": hit_at_1_ties_for_model(ranks),
    }
    return TaskResult(task, metrics_from_ranks(ranks.rank), len(ranks.rank), n_data, {**ties, **provenance})


def _data_provenance(dataset: EvalDataset) -> dict[str, Any]:
    data = {**asdict(dataset.source), "fingerprint": dataset.fingerprint}
    return {"data": data, "notes": dataset.notes} if dataset.notes else {"data": data}
