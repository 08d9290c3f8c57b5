import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import constants
from support.hub import Hub, serve
from support.paths import GOLDEN

from mmeb.data.hub_source import HUB_REPOSITORIES


@pytest.fixture
def golden() -> Path:
    """Reference data: ten subsets in `data/MMEB-eval`, their images in `data/images`."""
    return GOLDEN


@pytest.fixture
def pack_images() -> Callable[[Path, str], Path]:
    """Pack the golden images into an archive, each below a prefix, with macOS twins among them."""

    def pack(archive: Path, prefix: str = "") -> Path:
        archive.parent.mkdir(parents=True, exist_ok=True)
        folder = GOLDEN / "data" / "images"
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        twin = archive.parent / "twin"
        twin.write_bytes(b"no image")
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
                for path in files:
                    target.write(path, f"{prefix}{path.relative_to(folder)}")
                    target.write(twin, f"{prefix}{path.relative_to(folder).parent}/._{path.name}")
        else:
            with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
                for path in files:
                    tar.add(path, f"{prefix}{path.relative_to(folder)}")
                    tar.add(twin, f"{prefix}{path.relative_to(folder).parent}/._{path.name}")
        twin.unlink()
        return archive

    return pack


@pytest.fixture
def official(tmp_path: Path, pack_images: Callable[[Path], Path]) -> Path:
    """A folder like TIGER-Lab/MMEB-eval: `<subset>/test-00000-of-00001.parquet` and images.zip."""
    folder = tmp_path / "official"
    shutil.copytree(GOLDEN / "data" / "MMEB-eval", folder)
    pack_images(folder / "images.zip")
    return folder


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows of one subset as parquet, or JSONL, and return the file."""

    def write(rows: list[dict[str, Any]], name: str = "rows.parquet") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            pd.DataFrame(rows).to_parquet(path)
        return path

    return write


@pytest.fixture
def loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Serve folders as repositories to this process's hub client, with an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    @contextmanager
    def start(repositories: dict[str, Path]) -> Iterator[Hub]:
        with serve(repositories) as hub:
            monkeypatch.setattr(constants, "ENDPOINT", str(hub))
            template = "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub}{template}")
            yield hub

    return start


@pytest.fixture
def instruct(
    tmp_path: Path, write_rows: Callable[..., Path], pack_images: Callable[[Path, str], Path]
) -> dict[str, Path]:
    """The two repositories of the instruct data, with one subset."""
    row = {
        "qry_inst": "<|image_1|>\nFind it:",
        "qry_text": "bigger",
        "qry_img_path": "set0/im000.png",
        "tgt_inst": "<|image_1|>\nRepresent it.",
        "tgt_text": ["", ""],
        "tgt_img_path": ["set1/im001.png", "set0/im003.png"],
    }
    write_rows([row], "inst/CIRR/test-00000-of-00001.parquet")
    (tmp_path / "inst" / "README.md").write_text("# rows\n")
    pack_images(tmp_path / "v2" / "image-tasks" / "mmeb_v1.tar.gz", "MMEB/")
    (tmp_path / "v2" / "README.md").write_text("# media\n")
    names = HUB_REPOSITORIES["instruct"]
    return {f"datasets/{names.rows}": tmp_path / "inst", f"datasets/{names.images}": tmp_path / "v2"}


@pytest.fixture
def change_row() -> Callable[..., None]:
    """Replace the first images among the candidates of one row of a parquet file."""

    def change(path: Path, row: int, images: list[str]) -> None:
        rows = pd.read_parquet(path).to_dict("records")
        rows[row]["tgt_img_path"] = [*images, *rows[row]["tgt_img_path"][len(images) :]]
        pd.DataFrame(rows).to_parquet(path)

    return change
