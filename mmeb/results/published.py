"""The published tables that the package carries: papers' and leaderboards' figures, each with its source."""

import json
from functools import cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmeb.errors import MmebError
from mmeb.files import to_text, write_text
from mmeb.inputs import suggest
from mmeb.results.schema import QUERIES, RunResult, TaskResult
from mmeb.results.text import file_stem
from mmeb.tasks import PRIMARY_METRIC


@cache
def load() -> MappingProxyType[str, RunResult]:
    """The published results by model name, in the layout of every other result.

    Scores are fractions. A row of which only averages were published has no tasks. The averages as published stand in
    `provenance["stated_averages"]` (group to percent), kind and source in `provenance["published"]`.
    """
    text = resources.files("mmeb.results").joinpath("published.json").read_text(encoding="utf-8")
    return MappingProxyType({model["name"]: _to_result(model) for model in json.loads(text)["models"]})


def get(name: str) -> RunResult:
    """The published result of this name, whatever its case. Raises MmebError with the nearest names."""
    known = {published.lower(): published for published in load()}
    if name.lower() in known:
        return load()[known[name.lower()]]
    containing = [published for lower, published in known.items() if name.lower() in lower]
    hint = f"did you mean {' or '.join(containing[:3])}?" if containing else suggest(name, load(), n=3, cutoff=0.4)
    hint = hint or "`mmeb leaderboard published` lists them."
    raise MmebError(f"No published result is named {name!r}: {hint}")


def write_all(folder: Path) -> list[Path]:
    """Write every published result into `folder` as a file of a leaderboard, `published-<name>.json`."""
    paths = []
    for name, result in load().items():
        paths.append(folder / f"published-{file_stem(name)}.json")
        write_text(paths[-1], to_text(result.to_json()))
    return paths


def _to_result(model: dict[str, Any]) -> RunResult:
    tasks = {
        name: TaskResult(name, {PRIMARY_METRIC: round(score / 100, 6)}, QUERIES, QUERIES)
        for name, score in model["scores"].items()
    }
    metadata = {"model_name": model["name"], "model_size": model["size"], "data_source": "Published"}
    published = {key: model[key] for key in ("kind", "source", "size_source")}
    return RunResult(metadata, tasks, {"published": published, "stated_averages": model["averages"]})
