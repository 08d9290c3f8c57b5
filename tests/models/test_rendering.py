"""The input of each model, and that the documentation says just that."""

import pytest
from support.paths import ROOT

from mmeb.models.entries import ENTRIES, ModelEntry
from mmeb.models.registry import adapter_class
from mmeb.models.rendering import ModelInputs, model_inputs

DOCS = ROOT / "docs" / "models.md"


def inputs_of(entry: ModelEntry) -> list[ModelInputs]:
    return model_inputs(adapter_class(entry.adapter), entry.options)


def cell(text: str) -> str:
    """Code in a cell of a table, in which newlines are spelled out and pipes escaped."""
    return "`" + text.replace("\n", "\\n").replace("|", "\\|") + "`"


def as_table(pairs: list[ModelInputs]) -> str:
    lines = ["| query → target | tasks | query | candidate |", "|---|---|---|---|"]
    for pair in pairs:
        tasks = ", ".join(pair.tasks[:2]) + (", …" if len(pair.tasks) > 2 else "")
        lines.append(f"| {pair.pair} | {tasks} | {cell(pair.query)} | {cell(pair.candidate)} |")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_documentation_has_the_table_of_each_models_inputs(entry: ModelEntry) -> None:
    text = DOCS.read_text(encoding="utf-8")
    before, table, _ = text.partition(as_table(inputs_of(entry)))

    assert table, f"docs/models.md lacks this table:\n{as_table(inputs_of(entry))}"
    section = before.rpartition("\n## ")[2]
    assert f"`{entry.name}`" in section, f"the section of the table does not name {entry.name}"


def test_every_task_of_the_benchmark_is_in_one_pair() -> None:
    names = [name for pair in inputs_of(ENTRIES[0]) for name in pair.tasks]

    assert len(names) == len(set(names)) == 36


def test_a_bare_placeholder_is_kept_for_v1_and_dropped_for_v2() -> None:
    queries = {
        entry.name: pair.query for entry in ENTRIES for pair in inputs_of(entry) if pair.pair == "text → image+text"
    }

    assert queries["vlm2vec-phi35v"] == "<|image_1|>\n⟨instruction⟩ ⟨text⟩\n"
    assert queries["vlm2vec-v2.0"] == "⟨instruction⟩ ⟨text⟩\n"
