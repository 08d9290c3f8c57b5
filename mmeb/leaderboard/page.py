"""The leaderboard as one page that needs neither a server nor a network."""

import base64
from importlib import resources
from typing import Any

from markupsafe import Markup

from mmeb.leaderboard.board import DEMO_NOTICE, Board, Entry, Kind
from mmeb.pages import render
from mmeb.results.averages import coverage, one_decimal, round_half_up
from mmeb.tasks import GROUP_TITLES, GROUPS, TASKS


def page(board: Board) -> str:
    """index.html: the tables, charts, styles, scripts and libraries in one file.

    The libraries are DataTables, out of the itables package, and plotly.js, out of the plotly package. What comes from
    result files is in the page as JSON alone, and its script escapes it.
    """
    tables = resources.files("itables").joinpath("html")
    plotly = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    values = {
        "title": "MMEB leaderboard" + (" of the demo" if board.demo else ""),
        "notice": DEMO_NOTICE if board.demo else "",
        "data": _data(board),
        "datatables": base64.b64encode(tables.joinpath("dt_bundle.js").read_bytes()).decode(),
        "datatables_css": Markup(tables.joinpath("dt_bundle.css").read_text(encoding="utf-8")),
        "plotly": Markup(plotly.read_text(encoding="utf-8")),
    }
    return render("mmeb.leaderboard", values)


def _data(board: Board) -> dict[str, Any]:
    kinds = [kind.value for kind in Kind if any(e.kind is kind and not e.averages_only for e in board.entries)]
    if any(entry.averages_only for entry in board.entries):
        kinds.append("averages only")
    return {
        "groups": [{"key": group, "title": GROUP_TITLES[group], "size": len(tasks)} for group, tasks in GROUPS.items()],
        "tasks": [{"name": t.name, "meta": t.meta_task.value, "ind": t.in_distribution} for t in TASKS],
        "kinds": kinds,
        "models": [_model(number, entry) for number, entry in enumerate(board.entries)],
    }


def _model(number: int, entry: Entry) -> dict[str, Any]:
    """A model as the page's script takes it; lists are in the order of groups and tasks."""
    means = [entry.means[group] for group in GROUPS]
    return {
        "id": number,
        "place": number + 1 if entry.means["overall"] is not None else None,
        "name": entry.name,
        "kind": entry.kind.value,
        "origin": entry.origin,
        "url": entry.url,
        "size": entry.size,
        "backbone": entry.backbone,
        "means": means,
        "shown": ["" if mean is None else one_decimal(mean) for mean in means],
        "done": [coverage(entry.scores, group)[0] for group in GROUPS],
        "stated": [entry.stated.get(group) for group in GROUPS] if entry.averages_only else None,
        "scores": [round_half_up(entry.scores[t.name]) if t.name in entry.scores else None for t in TASKS],
        "problems": entry.problems,
    }
