"""A small MMEB-eval as the hub holds the real one, cut from the demo."""

import zipfile
from pathlib import Path

import pyarrow.parquet as pq

from mmeb.demo import demo_folder
from mmeb.tasks import TASKS


def write_official(folder: Path, *, rows: int = 60, candidates: int = 40) -> Path:
    """Write `<subset>/test-00000-of-00001.parquet` for all 36 tasks, and `images.zip`, without the demo's marker.

    Each task keeps its first rows, and each row its first candidates.
    """
    source = demo_folder() / "MMEB-eval"
    used: set[str] = set()
    for task in TASKS:
        name = f"{task.name}/test-00000-of-00001.parquet"
        kept = pq.read_table(source / name).slice(0, rows).to_pandas()
        for column in ("tgt_text", "tgt_img_path"):
            kept[column] = kept[column].map(lambda cells: cells[:candidates])
        used.update(kept["qry_img_path"], *kept["tgt_img_path"])
        (folder / task.name).mkdir(parents=True)
        kept.to_parquet(folder / name, index=False)
    with (
        zipfile.ZipFile(source / "images.zip") as archive,
        zipfile.ZipFile(folder / "images.zip", "w") as target,
    ):
        for member in archive.infolist():
            if member.filename in used:
                target.writestr(member, archive.read(member))
    return folder
