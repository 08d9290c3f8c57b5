import json
from pathlib import Path

import pytest
from support.paths import ROOT

from mmeb.errors import MmebError
from mmeb.results import published
from mmeb.results.averages import averages, percent
from mmeb.results.layouts import Reading
from mmeb.results.schema import RunResult
from mmeb.results.validation import AVERAGE_TOLERANCE, flagged, validate
from mmeb.tasks import PRIMARY_METRIC

RESULTS = ROOT / "leaderboard" / "results"

# Published figures that contradict themselves: the row, and the averages that its own tasks or parts do not give.
CONTRADICTIONS = {
    "SigLIP": ["retrieval"],  # 31.6 in the paper, its twelve tasks average 44.09
    "UniIR (CLIP_SF)": ["overall", "ind", "ood", "grounding"],  # its grounding tasks are another variant's
    "VLM2Vec (Qwen2-VL-2B-LoRA-HighRes)": ["overall"],  # 59.3 on the leaderboard, its meta-tasks make it 60.07
    "UniME(LLaVA-1.6-7B-LoRA-LowRes)": ["overall"],
    "UniME(Phi-3.5-V-LoRA)": ["overall"],
}


def reading(result: RunResult) -> Reading:
    return Reading(Path("x"), "", result, result.provenance["stated_averages"])


@pytest.mark.parametrize("name", [name for name, result in published.load().items() if result.tasks])
def test_published_averages_are_reproduced_unless_they_contradict_themselves(name: str) -> None:
    result = published.load()[name]
    means = averages({task: percent(scores.metrics[PRIMARY_METRIC]) for task, scores in result.tasks.items()})
    differing = [
        group
        for group, stated in result.provenance["stated_averages"].items()
        if abs((means[group] or 0) - stated) > AVERAGE_TOLERANCE
    ]
    assert differing == CONTRADICTIONS.get(name, [])


def test_the_validator_finds_exactly_the_known_contradictions() -> None:
    found = {
        name: [line.split()[1] for line in lines]
        for name, result in published.load().items()
        if (lines := flagged(reading(result)))
    }
    assert found == CONTRADICTIONS


def test_the_paper_s_retrieval_average_of_siglip_is_named_with_what_its_tasks_give() -> None:
    siglip = reading(published.load()["SigLIP"])
    assert flagged(siglip) == ["stated retrieval average 31.6, but its 12 tasks average 44.09"]


def test_a_file_that_says_what_its_source_says_is_right_contradictions_and_all() -> None:
    assert [name for name, result in published.load().items() if validate(reading(result), {})] == []


def test_a_submission_may_not_contradict_itself() -> None:
    siglip = published.load()["SigLIP"]
    own = RunResult(siglip.metadata, siglip.tasks, {"stated_averages": siglip.provenance["stated_averages"]})
    assert validate(reading(own), {}) == ["stated retrieval average 31.6, but its 12 tasks average 44.09"]
    assert flagged(reading(own)) == []


def test_every_row_has_a_source_and_averages() -> None:
    for result in published.load().values():
        assert result.provenance["published"]["source"]
        assert "overall" in result.provenance["stated_averages"]
        assert len(result.tasks) in {0, 36}


def test_the_seeds_of_the_leaderboard_are_what_the_package_carries(tmp_path: Path) -> None:
    written = published.write_all(tmp_path)
    assert len({path.name for path in written}) == len(published.load()) == 33
    for path in written:
        assert json.loads(path.read_text()) == json.loads((RESULTS / path.name).read_text())


def test_a_name_is_found_whatever_its_case_and_a_wrong_one_suggests_near_ones() -> None:
    assert published.get("siglip").metadata["model_name"] == "SigLIP"
    with pytest.raises(MmebError, match="VLM2Vec-V1-Qwen2VL-7B"):
        published.get("VLM2Vec-Qwen2VL-7B")
    with pytest.raises(MmebError, match="mmeb leaderboard published"):
        published.get("zzzzzzzz")
