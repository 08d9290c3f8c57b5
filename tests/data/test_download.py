import shutil
from collections import namedtuple
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from mmeb.data.dataset import load_eval
from mmeb.data.download import download
from mmeb.data.hub_source import HUB_REPOSITORIES
from mmeb.data.source import open_source
from mmeb.errors import MmebError
from mmeb.tasks import get_task, get_tasks

_EVAL = "datasets/TIGER-Lab/MMEB-eval"
_TASKS = get_tasks("CIRR,WebQA")


def test_the_rows_of_the_chosen_tasks_and_the_images_are_fetched(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        paths = download("hub", _TASKS)
        assert [path.parent.name for path in paths[:-1]] == ["CIRR", "WebQA"]
        assert set(hub.sent) == {"test-00000-of-00001.parquet", "images.zip"}
        hub.requests.clear()
        assert load_eval(get_task("WebQA"), open_source("hub", offline=True)).n_rows == 20
        assert hub.requests == []


def test_a_second_call_fetches_nothing(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        first = download("hub", _TASKS)
        hub.sent.clear()
        assert download("hub", _TASKS) == first
        assert hub.sent == {}
        hub.requests.clear()
        assert download("hub", _TASKS, offline=True) == first
        assert hub.requests == []


def test_a_folder_serves_as_data_and_knows_its_commit(official: Path, loopback: Any, tmp_path: Path) -> None:
    with loopback({_EVAL: official}):
        download("hub", _TASKS, output=tmp_path / "mine")
        at_hub = load_eval(get_task("CIRR"), open_source("hub"))
    here = load_eval(get_task("CIRR"), open_source(tmp_path / "mine"))
    assert here.fingerprint == at_hub.fingerprint
    assert (here.source.kind, here.source.revision) == ("folder", at_hub.source.revision)


def test_another_revision_does_not_go_into_the_same_folder(official: Path, loopback: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    (folder / "MMEB-eval").mkdir(parents=True)
    (folder / "MMEB-eval" / "mmeb-data.json").write_text('{"repository": "TIGER-Lab/MMEB-eval", "revision": "0"}')
    with loopback({_EVAL: official}), pytest.raises(MmebError, match="holds another revision"):
        download("hub", _TASKS, output=folder)


def test_what_broke_off_is_resumed(
    official: Path, loopback: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with loopback({_EVAL: official}) as hub:
        hub.breaks["images.zip"] = iter([100_000, *repeat(0, 20)])
        with pytest.raises(MmebError, match=r"images\.zip .* broke off: run the same command again, it is resumed"):
            download("hub", _TASKS, output=tmp_path / "mine")
        assert not (tmp_path / "mine" / "MMEB-eval" / "images.zip").exists()
        hub.breaks.clear()
        hub.sent.clear()
        download("hub", _TASKS, output=tmp_path / "mine")
    whole = (official / "images.zip").read_bytes()
    assert (tmp_path / "mine" / "MMEB-eval" / "images.zip").read_bytes() == whole
    assert hub.sent == {"images.zip": len(whole) - 100_000}


def test_a_part_of_other_bytes_is_found_and_thrown_away(official: Path, loopback: Any, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    with loopback({_EVAL: official}):
        download("hub", _TASKS, output=folder)
        images = folder / "MMEB-eval" / "images.zip"
        images.unlink()
        for lock in images.parent.glob(".cache/*.lock"):
            lock.with_suffix("").write_bytes(b"x" * 1000)
        with pytest.raises(MmebError, match=r"images\.zip arrived damaged from http://.*checksum is wrong"):
            download("hub", _TASKS, output=folder)
        download("hub", _TASKS, output=folder)
    assert images.read_bytes() == (official / "images.zip").read_bytes()


def test_too_little_space_is_said_before_anything_is_fetched(
    official: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**6, 10**6, 1000))
    with loopback({_EVAL: official}) as hub:
        with pytest.raises(MmebError, match=r"The download needs 0\.0 GB, and .* has 0\.0 GB free: make room"):
            download("hub", _TASKS)
        assert hub.sent == {}


def test_a_task_that_the_repository_lacks_is_named(official: Path, loopback: Any) -> None:
    with (
        loopback({_EVAL: official}),
        pytest.raises(MmebError, match=r"has no rows of GQA \(TIGER-Lab/MMEB-eval at"),
    ):
        download("hub", get_tasks("CIRR,GQA"))


def test_a_check_without_network_decompresses_nothing(instruct: dict[str, Path], loopback: Any) -> None:
    with loopback(instruct):
        images = download("instruct", [get_task("CIRR")])[-1]
        images.with_suffix("").unlink()
        assert download("instruct", [get_task("CIRR")], offline=True)[-1] == images
    assert not images.with_suffix("").exists()


def test_a_folder_is_not_checked_by_what_the_cache_has(official: Path, loopback: Any, tmp_path: Path) -> None:
    with loopback({_EVAL: official}):
        download("hub", _TASKS)
        with pytest.raises(MmebError, match="Offline, only the hub's cache can be checked"):
            download("hub", _TASKS, output=tmp_path / "mine", offline=True)


def test_only_hub_data_can_be_downloaded() -> None:
    with pytest.raises(MmebError, match="Only hub and instruct can be downloaded, not 'demo'"):
        download("demo", _TASKS)


def test_custom_tasks_alone_leave_nothing_to_download() -> None:
    with pytest.raises(MmebError, match="There is nothing to download: the rows and images of custom tasks"):
        download("hub", [replace(_TASKS[0], name="mine", rows=Path("mine.jsonl"))])


def test_instruct_data_comes_with_its_images_ready_to_be_read(
    instruct: dict[str, Path], loopback: Any, tmp_path: Path
) -> None:
    with loopback(instruct):
        paths = download("instruct", [get_task("CIRR")], output=tmp_path / "mine")
    assert paths[-1].with_suffix("").is_file()  # the plain tar
    data = load_eval(get_task("CIRR"), open_source(tmp_path / "mine"))
    assert (data.n_rows, data.source.repository) == (1, HUB_REPOSITORIES["instruct"].rows)
    assert data.candidates[0].image is not None
    data.candidates[0].image.rgb()
