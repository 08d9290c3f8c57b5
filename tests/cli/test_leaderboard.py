import json
from pathlib import Path

from support.command import Outcome, mmeb
from support.paths import ROOT
from support.runs import NAMES, report, write, write_run

SUBMIT = ("--name", "org/My Model", "--size", "2.21", "--url", "https://example.org/m", "--release-date", "2025-04-01")


def leaderboard(*arguments: str | Path) -> Outcome:
    return mmeb("leaderboard", *arguments)


def test_from_a_run_to_the_tables_and_the_page(complete_run: Path, tmp_path: Path) -> None:
    results, output = tmp_path / "results", tmp_path / "board"
    assert leaderboard("submit", complete_run, "--output", results, *SUBMIT).code == 0
    done = leaderboard("validate", results / "org__My-Model.json")
    assert done.code == 0
    assert "ok, 36/36 tasks, with per-query ranks" in done.out
    assert leaderboard("build", "--results", results, "--output", output).code == 0
    assert sorted(path.name for path in output.iterdir()) == ["README.md", "index.html", "table.csv"]
    readme = (output / "README.md").read_text()
    assert "[org/My Model](<https://example.org/m>)" in readme
    assert "| verified" in readme


def test_a_submission_keeps_what_its_maker_says(complete_run: Path, tmp_path: Path) -> None:
    more = ("--embedding-dimension", "1536", "--public")
    assert leaderboard("submit", complete_run, "--output", tmp_path, *SUBMIT, *more).code == 0
    content = json.loads((tmp_path / "org__My-Model.json").read_text())
    assert content["metadata"]["embedding_dimension"] == 1536
    assert set(content["metrics"]) == {"image", "video", "visdoc"}


def test_validate_says_all_that_is_wrong_in_all_files(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong.json", report(tasks=NAMES[:35], metadata={"model_size": -1}))
    cut = write(tmp_path / "cut.json", '{"metadata"')
    assert leaderboard("validate", wrong).code == 1
    done = leaderboard("validate", wrong, cut)
    assert done.code == 2
    lines = done.out.splitlines()[-3:]
    assert lines[0] == f"{wrong}: metadata: model_size is -1, not a number above 0"
    assert lines[1] == f"{wrong}: 1 of 36 tasks are missing: Visual7W-Pointing"
    assert lines[2].startswith(f"{cut}: ")


def test_demo_results_are_left_out_aloud_and_get_tables_of_their_own(tmp_path: Path) -> None:
    demo = write_run(tmp_path / "demo", tasks=NAMES[:2], data={"kind": "demo"}, n=20)
    write(tmp_path / "results" / "demo.json", (demo / "results.json").read_text())
    write(tmp_path / "results" / "real.json", report(name="real"))
    done = leaderboard("build", "--results", tmp_path / "results", "--output", tmp_path / "board")
    assert done.code == 0
    assert "demo.json is a demo result, which never enters the tables" in done.err
    assert "Demo" not in (tmp_path / "board" / "README.md").read_text()
    assert leaderboard("build", "--results", demo, "--output", demo, "--demo").code == 0
    assert "Demo results, on generated data" in (demo / "README.md").read_text()
    assert "Demo results, on generated data" in (demo / "index.html").read_text()


def test_no_tables_are_built_of_nothing(tmp_path: Path) -> None:
    demo = write_run(tmp_path / "demo", tasks=NAMES[:2], data={"kind": "demo"}, n=20)
    done = leaderboard("build", "--results", demo, "--output", tmp_path / "board")
    assert done.code == 2
    assert "holds only demo results" in done.err
    assert not (tmp_path / "board").exists()


def test_contradictions_are_told_while_building(tmp_path: Path) -> None:
    assert leaderboard("published", "--output", tmp_path / "results").code == 0
    done = leaderboard("build", "--results", tmp_path / "results", "--output", tmp_path)
    assert done.code == 0
    assert "flagged: SigLIP: stated retrieval average 31.6" in done.err


def test_a_published_figure_s_contradictions_are_told_and_its_file_is_valid(tmp_path: Path) -> None:
    assert leaderboard("published", "--output", tmp_path).code == 0
    done = leaderboard("validate", tmp_path / "published-SigLIP.json", tmp_path / "published-CLIP.json")
    assert done.code == 0
    lines = done.out.splitlines()
    assert "SigLIP.json: flagged, its source contradicts itself: stated retrieval average 31.6" in lines[0]
    assert [line.partition(": ")[2].partition(",")[0] for line in lines[1:]] == ["ok", "ok"]


def test_two_files_of_one_model_are_a_plain_error(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.json", report(name="same"))
    done = leaderboard("build", "--results", tmp_path, "--output", tmp_path / "board")
    assert done.code == 2
    assert "are both of the model 'same'" in done.err
    assert not (tmp_path / "board").exists()


def test_published_results_are_listed_with_their_sources() -> None:
    done = leaderboard("published")
    assert done.code == 0
    lines = done.out.splitlines()
    assert len(lines) == 33
    assert lines[0].startswith("CLIP (36/36 tasks; VLM2Vec paper Table 6")


def test_the_tables_in_the_repository_are_what_their_results_give(tmp_path: Path) -> None:
    board = ROOT / "leaderboard"
    assert leaderboard("build", "--results", board / "results", "--output", tmp_path).code == 0
    for name in ("README.md", "table.csv"):
        assert (tmp_path / name).read_text() == (board / name).read_text()
