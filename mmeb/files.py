"""Files and folders that are whole or not there."""

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from mmeb.errors import MmebError

_PLAIN = {
    errno.ENOSPC: "there is no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is denied",
    errno.EPERM: "permission is denied",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file would be larger than may be written here",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` on success, remove it on failure.

    Makes the folder. Raises MmebError where the file can't be written: no space, no permission.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        if (reason := _reason(error)) is None:
            raise
        raise MmebError(f"{path} can't be written: {reason}; nothing that was there is changed.") from error
    finally:
        if aside.parent.is_dir():
            aside.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to fill; rename it to `path`, which is not there yet, once it lies on the disk.

    It is removed on failure. Raises MmebError where it can't be written: no space, no permission.
    """
    aside = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        aside.mkdir(parents=True)
        yield aside
        for entry in [*aside.rglob("*"), aside]:
            _sync(entry)
        os.replace(aside, path)
        _sync(path.parent)
    except (OSError, SafetensorError) as error:
        if (reason := _reason(error)) is None:
            raise
        raise MmebError(f"{path} can't be written: {reason}; nothing that was there is changed.") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError | SafetensorError) -> str | None:
    """Why a file could not be written, None where that was not the trouble."""
    if isinstance(error, OSError):
        return _PLAIN.get(error.errno or 0) or error.strerror or str(error)
    number = re.search(r"\(os error (\d+)\)", str(error))  # it names the system's error in its text alone
    return None if number is None else _PLAIN.get(int(number[1]), os.strerror(int(number[1])))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises MmebError where it is missing, broken or no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MmebError(f"{path} can't be read: {os.strerror(error.errno or 0)}.") from None
    except ValueError as error:
        raise MmebError(f"{path} is not valid JSON ({error}).") from None
    if not isinstance(content, dict):
        raise MmebError(f"{path} is to hold a JSON object.")
    return content


def to_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
