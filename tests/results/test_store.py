"""A run folder trusts its files only where they agree."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.runs import result, write, write_run

from mmeb.errors import MmebError
from mmeb.results.ranks import Ranks, write_ranks
from mmeb.results.store import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(write_run(tmp_path, ("CIRR", "EDIS"), n=20))


def edit(path: Path, *place: str, value: Any) -> None:
    content = part = json.loads(path.read_text())
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    write(path, content)


def test_a_finished_task_is_read_as_it_was_written(run: RunFolder) -> None:
    assert run.read_task("CIRR") == result(("CIRR", "EDIS"), n=20).tasks["CIRR"]
    assert run.read_task("OVEN") is None


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("metrics", "hit@1"), 0.99),
        (("metrics", "num_pred"), 19),
        (("metrics", "num_data"), 10),
        (("metrics", "hit@1"), float("nan")),
        (("metrics", "other"), float("nan")),
        (("metrics", "num_pred"), float("nan")),
        (("metrics", "num_data"), float("inf")),
        (("task",), "EDIS"),
    ],
)
def test_a_task_that_contradicts_its_ranks_is_refused(run: RunFolder, place: tuple[str, ...], value: Any) -> None:
    edit(run.path / "CIRR.json", *place, value=value)
    with pytest.raises(MmebError, match=r"CIRR\.json contradicts CIRR\.ranks\.parquet; remove both, and run the task"):
        run.read_task("CIRR")


def test_other_ranks_are_refused(run: RunFolder) -> None:
    ranks = Ranks.empty(20)
    ranks.rank[:] = 1
    write_ranks(run.ranks_path("CIRR"), ranks)
    with pytest.raises(MmebError, match="contradicts"):
        run.read_task("CIRR")
    run.ranks_path("CIRR").write_bytes(b"")
    with pytest.raises(MmebError, match="can't be read as per-query ranks"):
        run.read_task("CIRR")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("metrics",), 3, r"CIRR\.json: metrics must be a mapping of fields, not 3\."),
        (("metrics", "hit@1"), "0.5", r"CIRR\.json: metrics\.hit@1 must be a number, not '0\.5'\."),
        (("provenance",), [], r"CIRR\.json: provenance must be a mapping of fields, not \[\]\."),
        (("extra",), 1, r"CIRR\.json: there is no field 'extra': there are task, metrics, provenance\."),
    ],
)
def test_a_task_file_of_another_form_is_refused(
    run: RunFolder, place: tuple[str, ...], value: Any, message: str
) -> None:
    edit(run.path / "CIRR.json", *place, value=value)
    with pytest.raises(MmebError, match=message):
        run.read_task("CIRR")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"identity": 3}, r"run\.json: identity must be a mapping of settings, not 3\."),
        ({"identity": {"data": "hub"}}, r"run\.json: identity\.data must be a mapping of settings, not 'hub'\."),
        ([], r"run\.json must hold a JSON object"),
    ],
)
def test_a_run_file_of_another_form_is_refused(run: RunFolder, content: Any, message: str) -> None:
    write(run.path / "run.json", content)
    with pytest.raises(MmebError, match=message):
        run.recorded()
