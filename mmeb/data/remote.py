"""Files on the hub that are wanted here, and whether there is space for them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from tqdm import tqdm

from mmeb.data import hub
from mmeb.data.images.plain_tar import plain_tar
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
    def is_packed(self) -> bool:
        return self.file.endswith((".tar.gz", ".tgz"))

    @property
    def missing_bytes(self) -> int:
        """What must still be written for it: what has not arrived, and the plain copy of a gzipped tar."""
        address = self.repository, self.commit, self.file, self.folder
        local = hub.find_local(*address)
        missing = self.size - hub.fetched_bytes(*address) if local is None else 0
        if self.is_packed and (local is None or not local.with_suffix("").is_file()):
            missing += _UNPACKED * self.size
        return missing


def fetch_all(files: Sequence[RemoteFile]) -> list[Path]:
    """Fetch what is not here yet. Raises MmebError, before any is fetched, where the space does not suffice."""
    _check_space(files)
    paths = []
    for file in tqdm(files, desc="files", unit="file", disable=None):
        paths.append(hub.fetch(file.repository, file.commit, file.file, offline=False, folder=file.folder))
        if file.is_packed:
            plain_tar(paths[-1])
    return paths


def _check_space(files: Sequence[RemoteFile]) -> None:
    needed = sum(file.missing_bytes for file in files)
    target = files[0].folder or Path(constants.HF_HUB_CACHE)
    place = next(folder for folder in (target, *target.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise MmebError(
            f"The download needs {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB free: make room, or choose "
            "another place with --output or HF_HOME."
        )
