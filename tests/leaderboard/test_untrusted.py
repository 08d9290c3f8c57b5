"""Whatever a file says, it becomes rows and tables, or one plain sentence."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.runs import report

from mmeb.errors import MmebError
from mmeb.leaderboard.board import Board, to_entry
from mmeb.leaderboard.page import page
from mmeb.leaderboard.tables import readme, table_csv
from mmeb.results.layouts import read
from mmeb.results.validation import validate

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["CIRR", "hit@1", "image", "data"]), children, max_size=3
        )
    ),
    max_leaves=8,
)
PLACES = [
    ("metadata",),
    ("metadata", "model_name"),
    ("metadata", "model_size"),
    ("metadata", "url"),
    ("metrics",),
    ("metrics", "image"),
    ("metrics", "image", "CIRR"),
    ("metrics", "image", "CIRR", "hit@1"),
    ("metrics", "image", "CIRR", "num_pred"),
    ("provenance",),
    ("provenance", "data"),
    ("provenance", "tasks"),
    ("provenance", "published"),
    ("provenance", "stated_averages"),
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_in_any_place(tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    content = report(tasks=("CIRR",))
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    for text in outcome(path):
        text.encode("utf-8")


def outcome(path: Path) -> list[str]:
    """The tables and the page, or what is said of a file that can't be read."""
    try:
        reading = read(path)
    except MmebError as error:
        return [str(error)]
    board = Board((to_entry(reading, validate(reading, {}), ()),), ())
    return [readme(board), table_csv(board), page(board)]
