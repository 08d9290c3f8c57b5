"""Files and folders that are complete or not there, and why one can't be written, in words."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mmeb.errors import MmebError
from mmeb.files import read_json, replacing, replacing_folder, write_text


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "file.txt", "whole 🐈")
    assert (tmp_path / "a" / "b" / "file.txt").read_text(encoding="utf-8") == "whole 🐈"


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing(tmp_path / "file.txt") as temporary:
            temporary.write_text("half")
            raise KeyError

    write_text(tmp_path / "file.txt", "earlier")
    with pytest.raises(KeyError):
        write_half()
    assert (tmp_path / "file.txt").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_path_through_a_file_is_said(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(MmebError, match="can't be written: a part of the path is a file, not a folder; nothing"):
        write_text(tmp_path / "file" / "x.txt", "")
    with pytest.raises(MmebError, match="can't be written: a part of the path is a file, not a folder; nothing"):
        write_text(tmp_path / "file" / "deeper" / "x.txt", "")


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(MmebError, match="can't be written: it is a folder"):
        write_text(tmp_path / "x", "")


def test_a_folder_is_there_once_it_is_complete(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "a" / "folder") as temporary:
        (temporary / "inner").mkdir()
        write_text(temporary / "inner" / "file", "whole")
        assert not (tmp_path / "a" / "folder").exists()
    assert (tmp_path / "a" / "folder" / "inner" / "file").read_text() == "whole"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["folder"]


def test_a_folder_that_failed_is_not_there(tmp_path: Path) -> None:
    def write_half() -> None:
        with replacing_folder(tmp_path / "folder") as temporary:
            write_text(temporary / "file", "half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert not list(tmp_path.iterdir())


def test_a_library_that_can_not_write_is_quoted(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "folder") as temporary:
        write = partial(save_file, {"vectors": np.zeros(3)})
        path = temporary / "missing" / "x.safetensors"
        with pytest.raises(MmebError, match=r"x\.safetensors can't be written: .*; nothing"), replacing(path):
            write(path.parent / "missing" / "y")


def test_json_that_is_nested_without_end_is_said(tmp_path: Path) -> None:
    write_text(tmp_path / "x.json", "[" * 200_000)
    with pytest.raises(MmebError, match="nested too deeply"):
        read_json(tmp_path / "x.json")
