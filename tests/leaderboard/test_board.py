from pathlib import Path

import pytest
from support.runs import NAMES, report, write, write_run

from mmeb.errors import MmebError
from mmeb.leaderboard.board import Kind, load_board
from mmeb.leaderboard.submission import submit
from mmeb.results import published


def test_a_row_says_where_its_numbers_come_from(tmp_path: Path, complete_run: Path) -> None:
    submit(complete_run, tmp_path / "results", {"model_name": "with ranks"})
    write(tmp_path / "results" / "bare.json", report(name="without ranks"))
    published.write_all(tmp_path / "results")
    kinds = {entry.name: entry.kind for entry in load_board(tmp_path / "results").entries}
    assert kinds["with ranks"] is Kind.VERIFIED
    assert kinds["without ranks"] is Kind.SELF_REPORTED
    assert kinds["SigLIP"] is Kind.PUBLISHED


def test_ranks_of_some_tasks_only_verify_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", tasks=("CIRR", "EDIS"))
    (run / "CIRR.ranks.parquet").unlink()
    (entry,) = load_board(run).entries
    assert entry.kind is Kind.SELF_REPORTED


def test_a_contradiction_is_flagged_and_not_verified(tmp_path: Path, complete_run: Path) -> None:
    written = submit(complete_run, tmp_path / "results", {})
    text = written.path.read_text()
    hits = f'"hit@1": {report()["metrics"]["image"]["CIRR"]["hit@1"]}'
    written.path.write_text(text.replace(hits, '"hit@1": 0.999'))
    (entry,) = load_board(tmp_path / "results").entries
    assert entry.kind is Kind.SELF_REPORTED
    assert any("its ranks make it" in problem for problem in entry.problems)


def test_rows_are_sorted_by_the_overall_average_then_by_what_is_there(tmp_path: Path) -> None:
    published.write_all(tmp_path)
    write(tmp_path / "part.json", report(name="part", tasks=NAMES[:30]))
    names = [entry.name for entry in load_board(tmp_path).entries]
    assert names[0] == "Qwen3-VL-Embedding-8B (MMEB leaderboard file)"
    assert names[12:16] == ["E5-V", "part", "QQMM-embed", "UniME(LLaVA-OneVision-7B-LoRA-Res336)"]


def test_demo_results_stand_beside_no_real_ones(tmp_path: Path) -> None:
    demo = write(tmp_path / "demo.json", report(name="toy", data={"kind": "demo"}, n=20))
    real = write(tmp_path / "real.json", report(name="real"))
    board = load_board(tmp_path)
    assert [entry.name for entry in board.entries] == ["real"]
    assert board.left_out == (demo,)
    board = load_board(tmp_path, demo=True)
    assert [entry.name for entry in board.entries] == ["toy"]
    assert board.left_out == (real,)
    assert board.demo


def test_a_folder_of_run_folders_and_one_run_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "a", ("CIRR",), "a")
    write_run(tmp_path / "runs" / "b", ("CIRR",), "b")
    assert {entry.name for entry in load_board(tmp_path / "runs").entries} == {"a", "b"}
    assert [entry.name for entry in load_board(tmp_path / "runs" / "a").entries] == ["a"]


def test_two_files_of_one_model_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.json", report(name="same"))
    write(tmp_path / "b.json", report(name="same"))
    with pytest.raises(MmebError, match=r"a\.json and .*b\.json are both of the model 'same'"):
        load_board(tmp_path)


def test_a_model_may_stand_beside_what_was_published_of_it(tmp_path: Path) -> None:
    published.write_all(tmp_path)
    write(tmp_path / "x.json", report(name="SigLIP"))
    assert [entry.kind for entry in load_board(tmp_path).entries if entry.name == "SigLIP"] == [
        Kind.SELF_REPORTED,
        Kind.PUBLISHED,
    ]


def test_every_file_that_can_t_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good.json", report())
    write(tmp_path / "cut.json", '{"metadata"')
    write(tmp_path / "odd.json", "{}")
    with pytest.raises(MmebError, match=r"2 of the result files .*cut\.json.*odd\.json"):
        load_board(tmp_path)


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(MmebError, match="There is no folder"):
        load_board(tmp_path / "none")
    with pytest.raises(MmebError, match="holds no result files"):
        load_board(tmp_path)


def test_a_task_scored_on_a_part_of_its_queries_does_not_count(tmp_path: Path) -> None:
    content = report()
    content["metrics"]["image"]["CIRR"] |= {"num_pred": 100, "hit@1": 1.0}
    write(tmp_path / "x.json", content)
    (entry,) = load_board(tmp_path).entries
    assert "CIRR" not in entry.scores
    assert entry.means["overall"] is None
    assert "CIRR: 100 queries were scored of 1000" in entry.problems


def test_odd_metadata_does_not_get_through(tmp_path: Path) -> None:
    content = report(
        name="a\u202eb\x07 \ud800",
        metadata={"model_size": "big", "url": "javascript:alert(1)", "model_backbone": ["x"]},
    )
    content["provenance"]["data"] = "nonsense"
    write(tmp_path / "x.json", content)
    (entry,) = load_board(tmp_path).entries
    assert entry.name == "a\ufffdb\ufffd \ufffd"
    assert (entry.size, entry.url, entry.backbone) == (None, None, "")
