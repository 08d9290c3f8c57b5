import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.runs import report, write

from mmeb.leaderboard.board import load_board
from mmeb.leaderboard.page import page
from mmeb.results import published


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found[1])
    return content


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    published.write_all(tmp_path)
    text = page(load_board(tmp_path))
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](?!data:)", text)
    assert "@import" not in text
    assert len(data_of(text)["models"]) == 33


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "</script><b>", "<!--", "{{title}}", "\u2028 x"])
def test_no_name_leaves_its_place_in_the_data(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.json", report(name=name))
    text = page(load_board(tmp_path))
    assert data_of(text)["models"][0]["name"] == name.replace("\u2028", "").strip()
    assert text.count("</script>") == 5


def test_a_demo_page_says_so(tmp_path: Path) -> None:
    write(tmp_path / "x.json", report(data={"kind": "demo"}, n=20))
    assert "Demo results, on generated data" in page(load_board(tmp_path, demo=True))
    write(tmp_path / "x.json", report())
    assert "Demo results" not in page(load_board(tmp_path))


def test_500_models_make_a_page_of_a_few_megabytes(tmp_path: Path) -> None:
    content = report()
    for number in range(500):
        content["metadata"]["model_name"] = f"model-{number}"
        write(tmp_path / f"{number}.json", content)
    text = page(load_board(tmp_path))
    assert len(text) < 10_000_000
    assert len(data_of(text)["models"]) == 500
