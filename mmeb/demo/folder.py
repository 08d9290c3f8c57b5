"""The demo in the user's cache, generated when it is first needed."""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmeb.demo.writer import VERSION, write_demo
from mmeb.errors import MmebError

_SEED = 0


def demo_folder() -> Path:
    """The root of the demo's files; see `made_once`. Raises MmebError where they can't be written."""
    return made_once(f"demo-v{VERSION}-seed{_SEED}", lambda folder: write_demo(folder, seed=_SEED))


def made_once(name: str, write: Callable[[Path], None]) -> Path:
    """The folder of this name in `$MMEB_CACHE` or `~/.cache/mmeb`; on the first call `write` fills it.

    It is filled under a temporary name and renamed, so that it is complete or not there; of two processes at once, the
    first to end wins. Raises MmebError where it can't be written.
    """
    cache = Path(os.environ.get("MMEB_CACHE") or Path.home() / ".cache" / "mmeb").expanduser()
    folder = cache / name
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=cache))
    except OSError as error:
        raise _unwritable(cache, error) from None
    try:
        write(staging)
        staging.chmod(0o755)
        os.rename(staging, folder)
    except OSError as error:
        # Another process was first.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST} or not folder.is_dir():
            raise _unwritable(cache, error) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _unwritable(cache: Path, error: OSError) -> MmebError:
    return MmebError(f"The demo can't be written to {cache} ({error.strerror}): set MMEB_CACHE to another folder.")
