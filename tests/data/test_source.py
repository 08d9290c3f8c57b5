import json
import os
import shutil
import socket
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download
from support.hub import commit_of, serve

from mmeb.data import hub as hub_client
from mmeb.data.dataset import load_eval
from mmeb.data.part import Part
from mmeb.data.source import open_source
from mmeb.errors import MmebError
from mmeb.tasks import get_task

_EVAL = "datasets/TIGER-Lab/MMEB-eval"
_COMMIT = "2f069730be515ea60778413777816b53e2d2a697"
_CIRR = get_task("CIRR")
_CIRR_ROWS = Part.of_task(_CIRR)


@pytest.mark.parametrize(
    "layout",
    [
        "CIRR/test-00000-of-00001.parquet",
        "CIRR/test.parquet",
        "CIRR.jsonl",
        "CIRR/rows.jsonl",
        "MMEB-eval/CIRR/test-00000-of-00001.parquet",
        "MMEB_Test_Instruct/CIRR.parquet",
    ],
)
def test_rows_are_found_in_the_layouts_that_people_have(tmp_path: Path, write_rows: Any, layout: str) -> None:
    row = {"qry_text": "a", "qry_img_path": "", "tgt_text": ["b"], "tgt_img_path": [""]}
    write_rows([row], f"data/{layout}")
    write_rows([row], "data/MMEB-train/CIRR/original-00000-of-00001.parquet")
    (tmp_path / "data" / layout).with_name("._twin.parquet").write_bytes(b"no rows")
    assert open_source(tmp_path / "data").row_files(_CIRR_ROWS) == [tmp_path / "data" / layout]


def test_the_folder_of_one_repository_or_of_several_may_be_named(golden: Path) -> None:
    inner, outer = (load_eval(_CIRR, open_source(golden / "data" / name)) for name in ("MMEB-eval", ""))
    assert inner.fingerprint == outer.fingerprint


def test_the_training_spelling_of_a_name_is_known() -> None:
    assert Part.of_task(get_task("ImageNet-1K")).select(["ImageNet_1K/test-00000-of-00001.parquet"])


def test_training_rows_are_not_taken_for_test_rows() -> None:
    files = [f"CIRR/{split}-00000-of-00001.parquet" for split in ("original", "train", "diverse_instruction")]
    assert _CIRR_ROWS.select(files) == []


def test_shards_are_taken_in_order_and_only_when_all_are_there() -> None:
    files = [f"CIRR/test-0000{i}-of-00003.parquet" for i in (2, 0, 1)]
    assert _CIRR_ROWS.select(files) == sorted(files)
    assert _CIRR_ROWS.select(files[:2]) == []


def test_a_task_without_rows_says_what_was_expected(golden: Path) -> None:
    with pytest.raises(MmebError, match=r"no rows of GQA: expected GQA/test-\*\.parquet or GQA\.jsonl"):
        open_source(golden / "data").row_files(Part.of_task(get_task("GQA")))


def test_data_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match=r"There is no folder .*: --data takes hub, instruct, demo, or a folder"):
        open_source(tmp_path / "gone")


def test_a_folder_has_no_other_revision(golden: Path) -> None:
    with pytest.raises(MmebError, match="does not hold revision"):
        open_source(golden / "data", revision=_COMMIT)


@pytest.mark.parametrize("marked", [".", "MMEB-eval"])
@pytest.mark.parametrize("named", [".", "MMEB-eval"])
def test_a_demo_that_somebody_wrote_is_still_a_demo(tmp_path: Path, golden: Path, marked: str, named: str) -> None:
    shutil.copytree(golden / "data" / "MMEB-eval", tmp_path / "MMEB-eval")
    (tmp_path / marked / "mmeb-demo.json").write_text("{}")
    assert open_source(tmp_path / named).describe().kind == "demo"


def test_a_downloaded_folder_knows_its_commit(tmp_path: Path) -> None:
    (tmp_path / "mmeb-data.json").write_text(json.dumps({"repository": "TIGER-Lab/MMEB-eval", "revision": _COMMIT}))
    described = open_source(tmp_path).describe()
    assert (described.kind, described.repository, described.revision) == ("folder", "TIGER-Lab/MMEB-eval", _COMMIT)
    assert open_source(tmp_path, revision=_COMMIT).describe() == described


def test_the_hub_is_read_at_the_published_commit(official: Path, golden: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        source = open_source("hub")
        data = load_eval(_CIRR, source)
        assert (data.source.kind, data.source.repository, data.source.revision) == (
            "hub",
            "TIGER-Lab/MMEB-eval",
            _COMMIT,
        )
        assert all(_COMMIT in path for method, path in hub.requests if "MMEB-eval" in path)
    assert data.fingerprint == load_eval(_CIRR, open_source(golden / "data")).fingerprint


def test_only_the_rows_of_a_task_and_the_images_are_fetched(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        load_eval(_CIRR, open_source("hub"))
        fetched = {path.split(f"{_COMMIT}/")[-1] for method, path in hub.requests if "/resolve/" in path}
    assert fetched == {"CIRR/test-00000-of-00001.parquet", "images.zip"}


def test_what_is_in_the_cache_is_read_without_a_call(
    official: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loopback({_EVAL: official}) as hub:
        first = load_eval(_CIRR, open_source("hub"))
        hub.requests.clear()
        again = load_eval(_CIRR, open_source("hub"))
        offline = load_eval(_CIRR, open_source("hub", offline=True))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        by_variable = load_eval(_CIRR, open_source("hub"))
        assert hub.requests == []
    assert len({data.fingerprint for data in (first, again, offline, by_variable)}) == 1


def test_offline_without_the_data_says_how_to_get_it(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        with pytest.raises(MmebError, match=r"local cache has no rows of CIRR .* `mmeb data download`"):
            load_eval(_CIRR, open_source("hub", offline=True))
        with pytest.raises(MmebError, match="not in the local cache, and no call may leave the machine"):
            open_source("hub", revision="main", offline=True)
        assert hub.requests == []


def test_a_branch_becomes_a_commit_once_and_is_known_offline(official: Path, loopback: Any) -> None:
    (official / "README.md").write_text("# MMEB\n")
    with loopback({_EVAL: official}):
        assert open_source("hub", revision="main").describe().revision == _COMMIT
        assert open_source("hub", revision="main", offline=True).describe().revision == _COMMIT


def test_a_revision_that_is_not_there_is_an_error(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}), pytest.raises(MmebError, match="TIGER-Lab/MMEB-eval has no such revision"):
        open_source("hub", revision="old-branch")


def test_instruct_data_is_read_with_its_images_in_the_other_repository(
    instruct: dict[str, Path], golden: Path, loopback: Any
) -> None:
    with loopback(instruct) as hub:
        source = open_source("instruct")
        data = load_eval(_CIRR, source)
        revision = source.describe().revision
        assert revision == "+".join(map(commit_of, instruct))
        assert open_source("instruct", offline=True).describe() == source.describe()
        hub.requests.clear()
        assert open_source("instruct", revision=revision).describe() == source.describe()
        assert hub.requests == []
    assert (data.queries[0].instruction, data.queries[0].text) == ("Find it:", "bigger")
    image = data.candidates[0].image
    assert image is not None
    assert image.read() == (golden / "data" / "images" / "set1" / "im001.png").read_bytes()


@pytest.mark.parametrize("status", [401, 404])
def test_a_hub_that_refuses_is_a_plain_sentence(official: Path, loopback: Any, status: int) -> None:
    with loopback({_EVAL: official}) as hub:
        hub.status[_EVAL] = status
        with pytest.raises(MmebError, match=rf"no TIGER-Lab/MMEB-eval, or does not show it to you \(HTTP {status}\)"):
            load_eval(_CIRR, open_source("hub"))


def test_a_file_that_is_not_in_the_repository_is_a_plain_sentence(official: Path, loopback: Any) -> None:
    (official / "images.zip").unlink()
    with loopback({_EVAL: official}), pytest.raises(MmebError, match=r"The hub has no images\.zip of TIGER-Lab"):
        load_eval(_CIRR, open_source("hub"))


def test_a_hub_that_cannot_be_reached_names_the_demo(loopback: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with loopback({}):
        monkeypatch.setattr(constants, "ENDPOINT", closed)
        for revision in (None, "main"):
            with pytest.raises(MmebError, match=r"hub cannot be reached .* `--data demo`"):
                load_eval(_CIRR, open_source("hub", revision=revision))


@pytest.mark.parametrize("name", ["my model/v1", "org/model..v2", "output/models/mine"])
def test_a_name_that_can_be_no_repositorys_is_a_plain_sentence(name: str) -> None:
    with (
        pytest.raises(MmebError, match=rf"'{name}' is neither a folder nor the name of a repository"),
        hub_client.plain_errors(name),
    ):
        hf_hub_download(name, "config.json")


def test_the_cache_is_read_without_a_call_however_incomplete_it_is(official: Path, loopback: Any) -> None:
    (official / "README.md").write_text("# MMEB\n")
    repository = "TIGER-Lab/MMEB-eval"
    with loopback({_EVAL: official}) as hub:
        assert hub_client.cached_snapshot(repository, "main") is None
        hub_client.resolve(repository, "main", offline=False)
        hub.requests.clear()
        by_branch = hub_client.cached_snapshot(repository, "main")
        assert by_branch is not None
        assert by_branch == hub_client.cached_snapshot(repository, _COMMIT)
        assert (by_branch.name, hub_client.cached_files(repository, _COMMIT)) == (_COMMIT, ["README.md"])
        assert hub_client.cached_snapshot(repository, "0" * 40) is None
        assert hub.requests == []


def test_a_break_in_the_middle_of_a_file_is_gone_over(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        hub.breaks["images.zip"] = iter([5000, 3000])
        assert load_eval(_CIRR, open_source("hub")).n_rows == 20


def test_a_hub_that_breaks_off_for_good_says_so_and_is_taken_up_where_it_stopped(
    official: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with loopback({_EVAL: official}) as hub:
        hub.breaks["images.zip"] = iter([5000, *repeat(0, 20)])
        with pytest.raises(MmebError, match=r"download of images\.zip of TIGER-Lab/MMEB-eval broke off: run the same"):
            load_eval(_CIRR, open_source("hub"))
        assert hub_client.fetched_bytes("TIGER-Lab/MMEB-eval", _COMMIT, "images.zip", None) == 5000
        del hub.breaks["images.zip"]
        hub.sent.clear()
        assert load_eval(_CIRR, open_source("hub")).n_rows == 20
        assert hub.sent["images.zip"] == (official / "images.zip").stat().st_size - 5000


def test_what_we_cached_is_what_the_hubs_own_client_finds(official: Path, loopback: Any) -> None:
    file = "CIRR/test-00000-of-00001.parquet"
    with loopback({_EVAL: official}) as hub:
        path = hub_client.fetch("TIGER-Lab/MMEB-eval", _COMMIT, file, offline=False)
        hub.requests.clear()
        found = hf_hub_download("TIGER-Lab/MMEB-eval", file, repo_type="dataset", revision=_COMMIT)
        assert (Path(found), hub.requests) == (path, [])


def test_a_file_that_another_commit_has_too_is_not_fetched_again(official: Path, loopback: Any) -> None:
    with loopback({_EVAL: official}) as hub:
        snapshot = hub_client.fetch("TIGER-Lab/MMEB-eval", _COMMIT, "images.zip", offline=False)
        snapshot.unlink()  # the blob stays
        hub.sent.clear()
        assert hub_client.fetch("TIGER-Lab/MMEB-eval", _COMMIT, "images.zip", offline=False) == snapshot
        assert hub.sent == {}


def test_the_rows_are_those_that_datasets_loads(official: Path, tmp_path: Path) -> None:
    script = (
        "import datasets, json; "
        "rows = datasets.load_dataset('TIGER-Lab/MMEB-eval', 'CIRR', split='test', revision='main'); "
        "print(json.dumps([rows['qry_text'][:], rows['tgt_text'][:]]))"
    )
    with serve({_EVAL: official}) as hub:
        environment = {**os.environ, "HF_ENDPOINT": str(hub), "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
        )
    queries, candidates = json.loads(done.stdout)
    data = load_eval(_CIRR, open_source(official))
    assert [data.queries[i].prompt for i in data.query_ids] == queries
    assert [[data.candidates[i].prompt for i in row] for row in data.candidate_ids] == candidates
