"""MMEB-train on the hub, or rather on a stand-in for it."""

import shutil
from collections import namedtuple
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from mmeb.data.download import download_train
from mmeb.data.hub import DEFAULT_REVISIONS
from mmeb.data.hub_source import TRAIN_REPOSITORY
from mmeb.data.train.dataset import open_train
from mmeb.demo import demo_folder
from mmeb.errors import MmebError

REPOSITORY = TRAIN_REPOSITORY.rows
_TRAIN = f"datasets/{REPOSITORY}"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder like the repository, with two subsets and the older rows beside theirs."""
    folder = tmp_path / "repository"
    (folder / "images_zip").mkdir(parents=True)
    (folder / "README.md").write_text("# rows\n")
    for name in ("CIRR", "VOC2007"):
        source = demo_folder() / "MMEB-train"
        shutil.copytree(source / name, folder / name)
        shutil.copy(folder / name / "original-00000-of-00001.parquet", folder / name / "train-00000-of-00001.parquet")
        shutil.copy(source / "images_zip" / f"{name}.zip", folder / "images_zip")
    return folder


def test_only_the_wanted_split_and_images_are_fetched(repository: Path, loopback: Any) -> None:
    with loopback({_TRAIN: repository}) as hub:
        (subset,) = open_train("hub", ["CIRR"])
        assert set(hub.sent) == {"original-00000-of-00001.parquet", "CIRR.zip"}
    assert (subset.source.kind, subset.source.repository) == ("hub", REPOSITORY)
    assert subset.source.revision == DEFAULT_REVISIONS[REPOSITORY]
    assert subset.fingerprint == open_train("demo", ["CIRR"])[0].fingerprint
    image = subset[0].query.image
    assert image is not None
    assert image.rgb().size[0] > 8


def test_what_is_here_is_opened_without_a_call(repository: Path, loopback: Any) -> None:
    with loopback({_TRAIN: repository}) as hub:
        paths = download_train(["CIRR", "VOC2007"])
        assert len(paths) == 4
        hub.requests.clear()
        assert len(open_train("hub", ["CIRR"], offline=True)[0]) == len(open_train("hub", ["VOC2007"])[0]) == 500
        assert download_train(["CIRR", "VOC2007"], offline=True) == paths == download_train(["CIRR", "VOC2007"])
        assert hub.requests == []
        with pytest.raises(MmebError, match=r"local cache has no diverse_instruction rows of CIRR .* --train CIRR"):
            open_train("hub", ["CIRR"], split="diverse_instruction", offline=True)


def test_a_folder_serves_as_data_and_knows_its_commit(repository: Path, loopback: Any, tmp_path: Path) -> None:
    with loopback({_TRAIN: repository}):
        download_train(["CIRR"], output=tmp_path / "mine")
        download_train(["VOC2007"], output=tmp_path / "mine", split="diverse_instruction")
    (subset,) = open_train(tmp_path / "mine", ["CIRR"])
    assert (subset.source.kind, subset.source.revision) == ("folder", DEFAULT_REVISIONS[REPOSITORY])
    assert open_train(tmp_path / "mine", ["VOC2007"], split="diverse_instruction")
    with pytest.raises(MmebError, match="no original"):
        open_train(tmp_path / "mine", ["VOC2007"])


def test_what_broke_off_is_resumed(repository: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    with loopback({_TRAIN: repository}) as hub:
        hub.breaks["CIRR.zip"] = iter([100_000, *repeat(0, 20)])
        with pytest.raises(MmebError, match=r"CIRR\.zip .* broke off: run the same command again, it is resumed"):
            open_train("hub", ["CIRR"])
        hub.breaks.clear()
        hub.sent.clear()
        open_train("hub", ["CIRR"])
    assert hub.sent["CIRR.zip"] == (repository / "images_zip" / "CIRR.zip").stat().st_size - 100_000


def test_too_little_space_is_said_before_anything_is_fetched(
    repository: Path, loopback: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**6, 10**6, 1000))
    with loopback({_TRAIN: repository}) as hub:
        with pytest.raises(MmebError, match=r"The download needs 0\.0 GB"):
            open_train("hub", ["CIRR"])
        assert hub.sent == {}


def test_what_the_repository_lacks_is_named(repository: Path, loopback: Any) -> None:
    (repository / "images_zip" / "VOC2007.zip").unlink()
    with loopback({_TRAIN: repository}):
        with pytest.raises(MmebError, match=r"at 76dd0a44 has no images_zip/VOC2007\.zip"):
            open_train("hub", ["VOC2007"])
        with pytest.raises(MmebError, match="repository has no original rows of NIGHTS"):
            open_train("hub", ["NIGHTS"])
