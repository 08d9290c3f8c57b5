"""The leaderboard as Markdown and as CSV."""

import csv
import io
import string
from collections.abc import Sequence
from urllib.parse import quote

from tabulate import tabulate

from mmeb.leaderboard.board import DEMO_NOTICE, Board, Entry, Kind
from mmeb.results.averages import mean_or_coverage, one_decimal, round_half_up
from mmeb.results.text import escape
from mmeb.tasks import GROUP_TITLES, GROUPS, TASKS, MetaTask

_INTRODUCTION = """\
hit@1 in percent. Averages are plain means over datasets (overall 36, IND 20, OOD 16, classification 10, VQA 10, \
retrieval 12, grounding 4), rounded once at the end; a group with a missing member has no average but shows how many \
of its tasks there are. The best of each column is bold.

*verified*: per-query ranks came with the scores, and every metric was recomputed from them. *self-reported*: scores \
without such ranks, or with something that does not add up. *published*: a paper's or the public leaderboard's \
figures; the number leads to the source. ⚠ marks rows with contradictions, listed at the end. The same table with all \
digits is in [table.csv](table.csv).
"""

_URL_SAFE = "".join(set(string.punctuation) - set("|\\`<>\"'"))  # what may stand in a link within a table's cell

_BUILT = "Built by `mmeb leaderboard build` from the result files; edits here are overwritten."


def readme(board: Board) -> str:
    """README.md of a leaderboard's folder."""
    sources = list(dict.fromkeys(entry.origin for entry in board.entries if entry.origin))
    scored = [entry for entry in board.entries if not entry.averages_only]
    stated = [entry for entry in board.entries if entry.averages_only]
    parts = ["# Leaderboard" + (" of the demo" if board.demo else ""), _BUILT]
    parts += [f"**{DEMO_NOTICE}**"] if board.demo else []
    parts += [_INTRODUCTION]
    parts += ["## Averages", _averages(scored, sources) if scored else "No results yet."]
    if stated:
        parts += ["## Only averages published", "Stated by their sources; without the tasks they can't be recomputed."]
        parts += [_stated(stated, sources)]
    for meta in MetaTask:
        parts += [f"## {GROUP_TITLES[meta.value]}, task by task", _tasks(scored, meta.value)] if scored else []
    parts += _contradictions(board)
    if sources:
        listed = [f'{number}. <a id="source-{number}"></a>{escape(text)}' for number, text in enumerate(sources, 1)]
        parts += ["## Sources", "\n".join(listed)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def table_csv(board: Board) -> str:
    """table.csv: a row per model, best first, in percent at full precision; empty where there is no figure.

    Averages that are only stated are not in it: every mean in this file is of the tasks beside it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *GROUPS, *(task.name for task in TASKS)])
    for entry in board.entries:
        cells = [*(entry.means[group] for group in GROUPS), *(entry.scores.get(task.name) for task in TASKS)]
        writer.writerow([_no_formula(entry.name), *("" if cell is None else repr(cell) for cell in cells)])
    return out.getvalue()


def _no_formula(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: an apostrophe stands before the characters that start one."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _averages(entries: Sequence[Entry], sources: list[str]) -> str:
    headers = ["#", "model", "source", "size (B)", *GROUP_TITLES.values()]
    columns = []
    for group in GROUPS:
        means = [entry.means[group] for entry in entries]
        columns.append(_bold_best(means, [mean_or_coverage(each.means[group], each.scores, group) for each in entries]))
    rows = [
        [str(place) if entry.means["overall"] is not None else "", _name(entry), _source(entry, sources), _size(entry)]
        + [column[place - 1] for column in columns]
        for place, entry in enumerate(entries, 1)
    ]
    return _table(headers, rows, left=3)


def _bold_best(values: Sequence[float | None], shown: Sequence[str]) -> list[str]:
    """The cells of a column; all that share the best value to the digit that is shown are bold."""
    best = max((round_half_up(value) for value in values if value is not None), default=None)
    return [
        f"**{cell}**" if value is not None and round_half_up(value) == best else cell
        for value, cell in zip(values, shown, strict=True)
    ]


def _stated(entries: Sequence[Entry], sources: list[str]) -> str:
    headers = ["model", "source", "size (B)", *GROUP_TITLES.values()]
    rows = [
        [_name(entry), _source(entry, sources), _size(entry)]
        + [f"*{one_decimal(entry.stated[group])}*" if group in entry.stated else "" for group in GROUPS]
        for entry in entries
    ]
    return _table(headers, rows, left=2)


def _tasks(entries: Sequence[Entry], group: str) -> str:
    headers = ["model", *(f"{task.name} ({'IND' if task.in_distribution else 'OOD'})" for task in GROUPS[group])]
    columns = []
    for task in GROUPS[group]:
        scores = [entry.scores.get(task.name) for entry in entries]
        columns.append(_bold_best(scores, ["" if score is None else one_decimal(score) for score in scores]))
    rows = [[_name(entry), *(column[place] for column in columns)] for place, entry in enumerate(entries)]
    return _table(headers, rows, left=1)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    align = ["left"] * left + ["right"] * (len(headers) - left)
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align)


def _name(entry: Entry) -> str:
    name = escape(entry.name)
    linked = f"[{name}](<{quote(entry.url, safe=_URL_SAFE)}>)" if entry.url else name
    return linked + (" [⚠](#what-does-not-add-up)" if entry.problems else "")


def _source(entry: Entry, sources: list[str]) -> str:
    if entry.kind is not Kind.PUBLISHED:
        return entry.kind.value
    number = sources.index(entry.origin) + 1
    return f"{entry.kind.value} [\\[{number}\\]](#source-{number})"


def _size(entry: Entry) -> str:
    return "" if entry.size is None else f"{entry.size:.3g}"


def _contradictions(board: Board) -> list[str]:
    flagged = [entry for entry in board.entries if entry.problems]
    if not flagged:
        return []
    lines = [f"- {escape(entry.name)}: {escape(problem)}" for entry in flagged for problem in entry.problems]
    return ["## What does not add up", "Found by recomputing what can be recomputed.", "\n".join(lines)]
