"""Custom tasks, as a user writes them."""

from pathlib import Path
from typing import Any

import pytest

from mmeb.errors import MmebError
from mmeb.results.store import RESULTS_FILE, RUN_FILE
from mmeb.tasks import Modality, get_tasks
from mmeb.tasks.custom import RESERVED_NAMES

GOOD = {
    "name": "Birds",
    "query": "image",
    "target": "text",
    "rows": "birds.jsonl",
    "query_instruction": "Name the bird",
}


def write(folder: Path, fields: dict[str, Any]) -> str:
    (folder / "birds.jsonl").write_text("")
    path = folder / "birds.yaml"
    path.write_text("\n".join(f"{name}: {value!r}" for name, value in fields.items()))
    return str(path)


def test_a_task_file_becomes_a_task_behind_the_benchmarks(tmp_path: Path) -> None:
    tasks = get_tasks(["VOC2007", write(tmp_path, GOOD)])
    assert [task.name for task in tasks] == ["VOC2007", "Birds"]
    birds = tasks[-1]
    assert birds.is_custom
    assert not birds.in_distribution
    assert (birds.query, birds.target) == (Modality.IMAGE, Modality.TEXT)
    assert birds.rows == tmp_path / "birds.jsonl"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "VOC2007"}, "task of the benchmark"),
        ({"name": "../Birds"}, "file's name"),
        ({"name": "N" * 240}, "longer than 200 bytes: shorten it"),
        ({"name": "Results"}, "'Results' is the name of a run's own file"),
        ({"query": "video"}, "query must be 'text', 'image' or 'image\\+text', not 'video'"),
        ({"meta_task": "birding"}, "meta_task must be 'classification', "),
        ({"name": 1.0}, r"birds\.yaml: name must be text, not 1\.0"),
        ({"rows": "absent.jsonl"}, "do not exist"),
        ({"instruction": "Name it"}, "there is no field 'instruction': did you mean query_instruction"),
        ({"colour": "red"}, "there is no field 'colour': there are name, query"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(MmebError, match=sentence):
        get_tasks(write(tmp_path, GOOD | change))


def test_the_names_of_a_runs_own_files_are_reserved() -> None:
    assert {Path(name).stem for name in (RUN_FILE, RESULTS_FILE)} <= RESERVED_NAMES


def test_two_different_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, second = write(tmp_path, GOOD), write(tmp_path / "other", GOOD)
    assert len(get_tasks([first, first])) == 1
    with pytest.raises(MmebError, match="Two different tasks are called 'Birds'"):
        get_tasks([first, second])


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="lacks the field query"):
        get_tasks(write(tmp_path, {"name": "Birds", "target": "text"}))


@pytest.mark.parametrize("content", ["[1, 2]", "name: [", "\udcff".encode("utf-8", "surrogateescape")])
def test_a_file_that_is_no_mapping_is_a_plain_error(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "task.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MmebError, match=r"task\.yaml"):
        get_tasks(str(path))


def test_a_missing_file_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="can't be read"):
        get_tasks(str(tmp_path / "absent.yaml"))
