"""Files on the hub that are wanted here, and whether there is space for them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from mmeb.data import hub
from mmeb.data.images.archives import plain_tar
from mmeb.errors import MmebError

_UNPACKED = 2  # a gzipped tar of photos, decompressed, is at most about this much larger than itself


@dataclass(frozen=True)
class RemoteFile:
    """A file on the hub, and the folder that it goes to; None is the hub's own cache. `size` is in bytes."""

    repository: str
    commit: str
    file: str
    size: int
    folder: Path | None

    @property
    def path(self) -> Path:
        return hub.place(self.repository, self.commit, self.file, self.folder)

    @property
    def is_packed(self) -> bool:
        return self.file.endswith((".tar.gz", ".tgz"))

    @property
    def missing_bytes(self) -> int:
        """What is still to be written for it: what has not arrived, and the plain copy of a gzipped tar."""
        arrived = hub.fetched_bytes(self.repository, self.commit, self.file, self.folder)
        left = 0 if self.path.is_file() else self.size - arrived
        return left + (_UNPACKED * self.size if self.is_packed and not self.path.with_suffix("").is_file() else 0)


def fetch_all(files: Sequence[RemoteFile]) -> list[Path]:
    """Fetch what is not here yet. Raises MmebError, before any is fetched, where the space does not suffice."""
    _check_space(files)
    for file in tqdm(files, desc="files", unit="file", disable=None):
        hub.fetch(file.repository, file.commit, file.file, offline=False, folder=file.folder)
        if file.is_packed:
            plain_tar(file.path)
    return [file.path for file in files]


def _check_space(files: Sequence[RemoteFile]) -> None:
    needed = sum(file.missing_bytes for file in files)
    place = next(parent for parent in files[0].path.parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MmebError(
            f"The download needs {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: make room, or choose "
            "another place with --output or HF_HOME."
        )
