"""The leaderboard as one page that needs neither a server nor a network."""

import base64
import html
import json
import re
from importlib import resources
from typing import Any

from mmeb.leaderboard.entries import Board, Entry, Kind
from mmeb.leaderboard.markdown import DEMO_NOTICE
from mmeb.results.averages import coverage, one_decimal, round_half_up
from mmeb.tasks import GROUP_TITLES, GROUPS, TASKS

_MARKER = re.compile(r"\{\{(\w+)\}\}")

# Chosen before the first paint, so that a dark page does not flash.
_THEME = """\
<script>
let theme = "system";
try { theme = localStorage.getItem("theme") ?? theme; } catch { /* a page from disk may have no storage */ }
document.documentElement.dataset.choice = ["light", "dark"].includes(theme) ? theme : "system";
if (theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches))
  document.documentElement.classList.add("dark");
</script>"""


def page(board: Board) -> str:
    """index.html: the tables, charts, styles, scripts and libraries in one file.

    The libraries are DataTables, out of the itables package, and plotly.js, out of the plotly package. What comes from
    result files is in the page as JSON alone, and its script escapes it.
    """
    tables = resources.files("itables").joinpath("html")
    datatables = base64.b64encode(tables.joinpath("dt_bundle.js").read_bytes()).decode()
    plotly = resources.files("plotly").joinpath("package_data", "plotly.min.js").read_text(encoding="utf-8")
    title = "MMEB leaderboard" + (" of the demo" if board.demo else "")
    banner = f'<div class="wide"><p class="banner">{html.escape(DEMO_NOTICE)}</p></div>' if board.demo else ""
    parts = {"title": html.escape(title), "banner": banner}
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<title>{parts["title"]}</title>\n<link rel="icon" href="data:,">',
            _THEME,
            f"<style>{tables.joinpath('dt_bundle.css').read_text(encoding='utf-8')}</style>",
            _fragment("style.html"),
            "</head>\n<body>",
            _MARKER.sub(lambda marker: parts[marker[1]], _fragment("body.html")),
            f'<script id="data" type="application/json">{_json(_data(board))}</script>',
            f'<script id="datatables" type="text/plain">{datatables}</script>',
            f'<script id="plotly" type="text/plain">{plotly}</script>',
            _fragment("script.html"),
            "</body>\n</html>\n",
        ]
    )


def _fragment(name: str) -> str:
    return resources.files("mmeb.leaderboard").joinpath("web", name).read_text(encoding="utf-8").rstrip()


def _json(content: Any) -> str:
    """JSON inside a script element: no `<`, so nothing in it can end the element."""
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


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
