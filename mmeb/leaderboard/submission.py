"""A run, or scores in another layout, as a submission: one JSON file that serves the public leaderboard too."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmeb.errors import MmebError
from mmeb.results.layouts import read
from mmeb.results.schema import IMAGE_PART, RunResult
from mmeb.results.store import load_ranks, ranks_path, write_submission
from mmeb.results.text import file_stem
from mmeb.results.validation import flagged, validate
from mmeb.tasks import TASKS, TASKS_BY_NAME

_PUBLIC_METADATA = (
    "model_name",
    "model_backbone",
    "model_size",
    "embedding_dimension",
    "max_length_tokens",
    "model_release_date",
    "data_source",
    "url",
    "report_generated_date",
)
"""The keys of the public leaderboard's metadata, in its order."""

_OTHER_PARTS: Mapping[str, tuple[str, ...]] = {
    "visdoc": (
        *(f"ViDoRe_{name}" for name in ("arxivqa", "docvqa", "infovqa", "tabfquad", "tatdqa", "shiftproject")),
        *(
            f"ViDoRe_syntheticDocQA_{name}"
            for name in ("artificial_intelligence", "energy", "government_reports", "healthcare_industry")
        ),
        "ViDoRe_esg_reports_human_labeled_v2",
        *(
            f"ViDoRe_{name}_v2{suffix}"
            for name in ("biomedical_lectures", "economics_reports", "esg_reports")
            for suffix in ("", "_multilingual")
        ),
        *(f"VisRAG_{name}" for name in ("ArxivQA", "ChartQA", "MP-DocVQA", "SlideVQA", "InfoVQA", "PlotQA")),
        *("ViDoSeek-page", "ViDoSeek-doc", "MMLongBench-page", "MMLongBench-doc"),
    ),
    "video": (
        *("DiDeMo", "MSR-VTT", "MSVD", "VATEX", "YouCook2"),
        *("QVHighlight", "Charades-STA", "MomentSeeker"),
        *("K700", "SmthSmthV2", "HMDB51", "UCF101", "Breakfast"),
        *("MVBench", "Video-MME", "NExTQA", "EgoSchema", "ActivityNetQA"),
    ),
}
"""The datasets of MMEB-V2 that are no images, in the order of the public leaderboard's report script."""


@dataclass(frozen=True)
class Submission:
    """What was written: the file, its ranks if it has any, and what its maker should know."""

    path: Path
    ranks: Path | None
    notes: tuple[str, ...]


def submit(
    run: Path,
    output: Path,
    metadata: Mapping[str, Any],
    *,
    public: bool = False,
    partial: bool = False,
    force: bool = False,
) -> Submission:
    """Write `output/<model>.json`, and beside it `<model>.ranks.parquet` where the run has per-query ranks.

    `run` is a run folder or anything else that `layouts.read` reads; `metadata` overrides what it says of the model.
    With `public` the file also has the entries that the public leaderboard's own script writes for the parts and
    tasks that were not run. Raises MmebError for demo results, an incomplete run (unless `partial`), anything that
    the validator finds wrong, and a file that exists (unless `force`).
    """
    reading = read(run)
    result = reading.result
    if result.is_demo:
        raise MmebError(f"{run} holds demo results, which never enter a leaderboard; run on --data hub for real ones.")
    custom = [name for name in result.tasks if name not in TASKS_BY_NAME and result.tasks[name].provenance]
    tasks = {task.name: result.tasks[task.name] for task in TASKS if task.name in result.tasks}
    foreign = {name: result.tasks[name] for name in result.tasks if name not in TASKS_BY_NAME and name not in custom}
    reading.result = RunResult(_metadata(result.metadata, metadata), {**tasks, **foreign}, result.provenance)
    loaded = load_ranks(run)
    ranks = {name: loaded[name] for name in tasks if name in loaded}
    if problems := [*validate(reading, ranks, partial=partial), *flagged(reading)]:
        hint = " (--partial permits missing tasks)" if any("tasks are missing" in line for line in problems) else ""
        raise MmebError(f"{run} can't be submitted: {'; '.join(problems)}{hint}.")
    name = reading.result.metadata["model_name"]
    path = output / f"{file_stem(name)}.json"
    _check_free(path, name, force)
    content = reading.result.to_json()
    if public:
        content["metrics"] = _with_absent(content["metrics"])
    write_submission(path, content, ranks)
    notes = [f"custom task, left out: {name}" for name in custom]
    if unranked := len(tasks.keys() - ranks.keys()):
        notes.append(f"{unranked} tasks have no per-query ranks: the row will be self-reported, not verified")
    return Submission(path, ranks_path(path) if ranks else None, tuple(notes))


def _metadata(measured: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """The public leaderboard's keys first and in its order; empty ones are left out."""
    known = {"data_source": "Self-Reported", **measured, **{k: v for k, v in stated.items() if v is not None}}
    ordered = [*_PUBLIC_METADATA, *(key for key in known if key not in _PUBLIC_METADATA)]
    return {key: known[key] for key in ordered if known.get(key) is not None}


def _check_free(path: Path, name: str, force: bool) -> None:
    if not path.exists():
        return
    earlier = read(path).result.metadata.get("model_name")
    if earlier != name:
        raise MmebError(f"{path} is of another model, {earlier!r}; give yours another --name.")
    if not force:
        raise MmebError(f"{path} exists: {name!r} was submitted before; --force replaces it.")


def _with_absent(metrics: Mapping[str, Any]) -> dict[str, Any]:
    image = {task.name: metrics[IMAGE_PART].get(task.name, "FILE_N/A") for task in TASKS}
    return {IMAGE_PART: image, **{part: dict.fromkeys(names, "DIR_N/A") for part, names in _OTHER_PARTS.items()}}
