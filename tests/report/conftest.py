"""A run on the small reference data, with vectors drawn by chance."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.paths import GOLDEN

from mmeb.data.dataset import load_eval
from mmeb.data.source import open_source
from mmeb.evaluation.ranking import rank
from mmeb.results.ranks import metrics_from_ranks
from mmeb.results.schema import TaskResult
from mmeb.results.store import RunFolder
from mmeb.tasks import get_tasks

DATA = GOLDEN / "data"
TASKS = "ImageNet-1K,OK-VQA,CIRR,MSCOCO_t2i"
HOSTILE = """<script>document.title = "taken"</script> "quoted" & عربي 🐈"""


def unit_vectors(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(n, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a model with a hostile name."""
    source, rng = open_source(DATA), np.random.default_rng(0)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    identity = {"model": {"name": HOSTILE, "dtype": "float32"}, "data": asdict(source.describe()), "limit": None}
    folder.open({"identity": identity, "started": "2026-01-02T03:04:05+00:00"})
    for task in get_tasks(TASKS):
        data = load_eval(task, source)
        vectors = unit_vectors(rng, len(data.queries)), unit_vectors(rng, len(data.candidates))
        ranks = rank(*vectors, data.query_ids, data.candidate_ids)
        provenance = {"data": {**asdict(data.source), "fingerprint": data.fingerprint}}
        n = len(ranks)
        folder.write_task(TaskResult(task.name, metrics_from_ranks(ranks.rank), n, n, provenance), ranks)
    return folder.path
