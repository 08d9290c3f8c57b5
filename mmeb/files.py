"""Files and folders that are complete or not there."""

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
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
    """Give a temporary path beside `path` to write to; rename it to `path` on success, remove it on failure.

    Makes the folder. Raises MmebError where the file can't be written: no space, no permission.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _refusals(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give a new folder beside `path` to fill; rename it to `path`, which is not there yet, once it lies on the disk.

    It is removed on failure. Raises MmebError where it can't be written: no space, no permission.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with _refusals(path):
            shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
            temporary.mkdir(parents=True)
            yield temporary
            for entry in [*temporary.rglob("*"), temporary]:
                _sync(entry)
            os.replace(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Say in one sentence why the system refuses to write `path`; safetensors raises another exception for it."""
    try:
        yield
    except OSError as error:
        reason = _PLAIN.get(error.errno or 0) or error.strerror or str(error)
        raise MmebError(f"{path} can't be written: {reason}; nothing that was there is changed.") from error
    except SafetensorError as error:
        raise MmebError(f"{path} can't be written: {error}; nothing that was there is changed.") from error


def _sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, *, to_dict: Callable[[list[tuple[str, Any]]], dict[str, Any]] = dict) -> dict[str, Any]:
    """A JSON object from a file; `to_dict` makes each object in it from its (name, value) pairs.

    Raises MmebError where it is missing, broken or no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=to_dict)
    except OSError as error:
        raise MmebError(f"{path} can't be read: {os.strerror(error.errno or 0)}.") from None
    except RecursionError:
        raise MmebError(f"{path} can't be read: it is nested too deeply.") from None
    except ValueError as error:
        raise MmebError(f"{path} is not valid JSON, perhaps cut off: {error}.") from None
    if not isinstance(content, dict):
        raise MmebError(f"{path} must hold a JSON object.")
    return content


def to_text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
