"""Scores of the held-out tasks before and after training on the demo, by meta-task, for several seeds.

The demo's 20 training subsets are trained on, its 16 out-of-distribution tasks are scored: hit@1 in percent, means over
the tasks of a meta-task that are held out, and over all 16. `chance` is a blind guess. By default the steps are fewer
than the recipe's, so that three seeds take minutes.

    python -m benchmarks.training.demo [--json FILE]
    python -m benchmarks.training.demo --steps 0        # as many as the recipe has
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.support.figures import json_option, show
from mmeb.data.dataset import EvalDataset, load_eval
from mmeb.data.source import open_source
from mmeb.evaluation.encode import encode
from mmeb.evaluation.ranking import rank
from mmeb.models.base import EmbeddingModel
from mmeb.results.ranks import metrics_from_ranks
from mmeb.tasks import MetaTask, get_tasks
from mmeb.training.loop import train
from mmeb.training.recipe import Recipe, RunSettings, find_recipe
from mmeb.training.run import prepare, saver

Scores = Mapping[str, float]  # by task, fractions


def open_tasks(limit: int | None) -> list[EvalDataset]:
    """The held-out tasks, or the first `limit` queries of each."""
    datasets = [load_eval(task, open_source("demo")) for task in get_tasks("ood")]
    return [dataset if limit is None else dataset.head(limit) for dataset in datasets]


def chance(tasks: Sequence[EvalDataset]) -> Scores:
    """hit@1 of a blind guess among each query's candidates."""
    sizes = {task.task: [len(np.unique(row[row >= 0])) for row in task.candidate_ids] for task in tasks}
    return {name: float(np.mean(1 / np.array(each))) for name, each in sizes.items()}


def score(model: EmbeddingModel, tasks: Sequence[EvalDataset]) -> Scores:
    """hit@1, also of a model that would be refused: untrained, it may tell little apart, and ties count against it."""
    vectors = encode(model, [item for task in tasks for item in (*task.queries, *task.candidates)])
    ends = np.cumsum([len(side) for task in tasks for side in (task.queries, task.candidates)])
    sides = np.split(vectors, ends[:-1])
    scores = {}
    for task, queries, candidates in zip(tasks, sides[::2], sides[1::2], strict=True):
        ranks = rank(queries, candidates, task.query_ids, task.candidate_ids)
        scores[task.task] = metrics_from_ranks(ranks.rank)["hit@1"]
    return scores


def train_once(recipe: Recipe, output: Path, tasks: Sequence[EvalDataset]) -> tuple[Scores, Scores, float]:
    """Scores before and after, and the minutes that training took."""
    prepared = prepare(recipe, data="demo")
    before = score(prepared.model, tasks)
    settings = RunSettings(output, save_every=None)
    started = time.perf_counter()
    train(prepared.model, prepared.subsets, prepared.recipe, settings, saver(prepared, settings, ""))
    minutes = (time.perf_counter() - started) / 60
    return before, score(prepared.model, tasks), minutes


def by_meta_task(scores: Scores) -> dict[str, float]:
    """Means in percent."""
    groups = {meta.value: [task for task in get_tasks("ood") if task.meta_task is meta] for meta in MetaTask}
    groups["OOD"] = get_tasks("ood")
    return {name: 100 * fsum(scores[task.name] for task in tasks) / len(tasks) for name, tasks in groups.items()}


@click.command(help=__doc__)
@json_option
@click.option("--adapter", default="demo", show_default=True)
@click.option("--recipe", "name", help="A recipe's name, where it is not the adapter's default one.")
@click.option("--model", help="What to start from, where it is not the recipe's.")
@click.option("--steps", default=900, show_default=True, help="Steps of a run; 0 for the recipe's.")
@click.option("--seeds", default="0,1,2", show_default=True)
@click.option("--limit", type=int, help="Score the first queries of each task only.")
def main(
    json_file: Path | None,
    adapter: str,
    name: str | None,
    model: str | None,
    steps: int,
    seeds: str,
    limit: int | None,
) -> None:
    recipe = find_recipe(name, None if name else adapter).recipe
    recipe = replace(recipe, steps=steps or recipe.steps, model=model or recipe.model)
    if steps:
        recipe = replace(recipe, warmup_steps=min(recipe.warmup_steps, steps // 10))
    tasks = open_tasks(limit)
    rows: list[dict[str, Any]] = [{"model": "chance", "seed": "", **by_meta_task(chance(tasks))}]
    runs: dict[str, list[dict[str, float]]] = {"untrained": [], f"{recipe.steps} steps": []}
    for seed in map(int, seeds.split(",")):
        with tempfile.TemporaryDirectory() as temporary:
            *scores, minutes = train_once(replace(recipe, seed=seed), Path(temporary, "run"), tasks)
        for label, means in zip(runs, map(by_meta_task, scores), strict=True):
            runs[label].append(means)
            rows.append({"model": label, "seed": str(seed), **means})
        rows[-1]["minutes"] = minutes
    for label, each in runs.items():
        rows.append({"model": label, "seed": "mean", **_over_seeds(each, statistics.fmean)})
        if len(each) > 1:
            rows.append({"model": label, "seed": "standard deviation", **_over_seeds(each, statistics.stdev)})
    show(rows, json_file, floatfmt=".1f")


def _over_seeds(runs: list[dict[str, float]], statistic: Callable[[list[float]], float]) -> dict[str, float]:
    return {group: statistic([run[group] for run in runs]) for group in runs[0]}


if __name__ == "__main__":
    main()
