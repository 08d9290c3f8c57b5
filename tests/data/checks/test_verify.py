import zipfile
from pathlib import Path
from typing import Any

import pytest

from mmeb.data.checks.verify import verify
from mmeb.data.source import open_source
from mmeb.tasks import get_task

_WEBQA = get_task("WebQA")


def test_whole_data_is_complete(official: Path) -> None:
    report = verify(get_task("CIRR"), open_source(official), decode=True)
    assert report.is_complete
    assert (report.rows, report.candidates, report.images) == (20, (20, 20), 34)


@pytest.mark.parametrize("name", ["set0/gone.png", "set0/._im000.png"])
def test_every_missing_image_is_listed(official: Path, change_row: Any, name: str) -> None:
    change_row(official / "WebQA" / "test-00000-of-00001.parquet", 1, [name, "set0/lost.png"])
    report = verify(_WEBQA, open_source(official))
    assert set(report.missing) == {name, "set0/lost.png"}
    assert not report.is_complete


def test_a_broken_image_is_found_by_decoding(official: Path) -> None:
    with zipfile.ZipFile(official / "images.zip") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(official / "images.zip", "w") as target:
        for name, content in members.items():
            target.writestr(name, content[:50] if name == "set0/im000.png" else content)
    assert verify(_WEBQA, open_source(official)).is_complete
    (broken,) = verify(_WEBQA, open_source(official), decode=True).broken
    assert broken.endswith("images.zip/set0/im000.png")


def test_rows_are_counted_that_list_a_candidate_or_the_ground_truth_twice(tmp_path: Path, write_rows: Any) -> None:
    lists = [["a", "b", "c"], ["a", "b", "b"], ["a", "a"], ["a", "b", "a", "b"]]
    write_rows(
        [{"qry_text": f"{i}", "qry_img_path": "", "tgt_text": texts} for i, texts in enumerate(lists)], "GQA.jsonl"
    )
    report = verify(get_task("GQA"), open_source(tmp_path))
    assert (report.rows, report.candidates) == (4, (2, 4))
    assert (report.duplicates, report.copies) == (3, 2)


def test_what_cannot_be_read_is_a_sentence_in_the_report(official: Path) -> None:
    assert "no rows of GQA" in verify(get_task("GQA"), open_source(official)).error
    (official / "images.zip").write_bytes(b"no zip")
    assert "cut off or damaged" in verify(_WEBQA, open_source(official)).error
