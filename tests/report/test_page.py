"""The page of a run's failures: whole in itself, escaped, bounded."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.command import mmeb
from support.paths import GOLDEN

from mmeb.data.images.image import FileImage
from mmeb.errors import MmebError
from mmeb.report.page import write_report
from mmeb.report.thumbnails import thumbnail

DATA = GOLDEN / "data"


class Reader(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def page_of(run: Path, tmp_path: Path, examples: int = 20, tasks: str | None = None) -> str:
    write_report(run, tmp_path / "report.html", examples=examples, tasks=tasks)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_each_task_has_its_score_and_its_wrong_queries(run: Path, tmp_path: Path) -> None:
    page = Reader(page_of(run, tmp_path))
    wrong = 0
    for path in run.glob("*.ranks.parquet"):
        result = json.loads((run / path.name.replace(".ranks.parquet", ".json")).read_text())
        wrong += round(20 * (1 - result["metrics"]["hit@1"]))
        assert result["task"] in page.text
    assert page.text.count("right candidate on rank") == wrong
    assert sum(attributes.get("class") == "cards" for _, attributes in page.tags) == 4


def test_the_page_needs_nothing_but_itself(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path)
    reader = Reader(page)
    assert all(source.startswith("data:image/") for source in reader.attributes("src"))
    assert all(link.startswith(("#", "data:")) for link in reader.attributes("href"))
    assert not re.search(r"url\(|@import", page)


def test_names_and_texts_stay_text(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path)
    reader = Reader(page)
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert 'Where <script>document.title = "taken"</script> "quoted" & عربي 🐈 fails' in reader.text


def test_examples_bound_the_page(run: Path, tmp_path: Path) -> None:
    assert page_of(run, tmp_path, examples=3).count('<div class="answers">') == 4 * 3
    none = page_of(run, tmp_path, examples=0)
    assert '<div class="answers">' not in none
    assert "no examples were asked for" in none


def test_only_the_tasks_that_were_asked_for_are_shown(run: Path, tmp_path: Path) -> None:
    page = page_of(run, tmp_path, tasks="vqa,CIRR")
    assert re.findall(r'<details id="task-\d+" data-task="([^"]+)"', page) == ["OK-VQA", "CIRR"]


def test_a_task_that_was_not_scored_is_said(run: Path, tmp_path: Path) -> None:
    done = mmeb("report", run, "--tasks", "CIRR,GQA", "--output", tmp_path / "page.html")
    assert done.code == 0
    assert "Not scored in this run, so not on the page: GQA." in done.err
    assert "page.html" in done.out


def test_pictures_are_small_whatever_the_image() -> None:
    for path in sorted((DATA / "images").rglob("*.*")):
        picture = thumbnail(FileImage(path))
        assert picture.uri is not None
        assert len(picture.uri) < 16_100  # 12 kB in base64
        assert (picture.width, picture.height) == FileImage(path).size()


@pytest.mark.parametrize("shape", [(224, 224), (160, 160), (112, 112), (1, 3000)])
def test_pictures_of_pure_noise_are_small_too(shape: tuple[int, int], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (*shape, 3), dtype=np.uint8) * 255  # nothing to compress
    Image.fromarray(noise).save(tmp_path / "noise.png")
    uri = thumbnail(FileImage(tmp_path / "noise.png")).uri
    assert uri is not None
    assert len(uri) < 16_100


def test_a_broken_image_is_said_where_it_would_stand(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    for path in (data / "images").rglob("*.*"):
        path.write_bytes(b"no image")
    write_report(run, tmp_path / "report.html", data=str(data), tasks="CIRR")
    page = (tmp_path / "report.html").read_text()
    assert "can&#39;t be decoded" in page
    assert "data:image/webp" not in page


def test_other_data_than_the_runs_is_refused(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    rows = next((data / "MMEB-eval" / "OK-VQA").glob("*.parquet"))
    frame = pd.read_parquet(rows)
    frame.iloc[:-1].to_parquet(rows)
    with pytest.raises(MmebError, match=r"OK-VQA: the data in .* is not what the run was scored on"):
        write_report(run, tmp_path / "report.html", data=str(data), tasks="OK-VQA")
    assert not (tmp_path / "report.html").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    done = mmeb("report", tmp_path)
    assert done.code == 2
    assert "is no run folder" in done.err


@pytest.mark.parametrize(
    ("file", "sentence"), [("run.json", "does not say what was run"), ("CIRR.json", "there is no field")]
)
def test_a_file_of_the_run_that_lost_its_content_is_named(run: Path, tmp_path: Path, file: str, sentence: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / file).write_text('{"identity": {}}')
    with pytest.raises(MmebError, match=rf"{file}:? .*{sentence}"):
        write_report(tmp_path / "run", tmp_path / "report.html", tasks="CIRR")


def test_a_run_without_the_tasks_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="no finished task of GQA"):
        write_report(run, tmp_path / "report.html", tasks="GQA")
