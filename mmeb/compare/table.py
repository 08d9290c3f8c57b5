"""A comparison as a table, for the terminal and in Markdown."""

import itertools
import string
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from mmeb.compare.compare import COMMON, Comparison, GroupDifference, Method, TaskDifference
from mmeb.results.averages import one_decimal
from mmeb.results.text import escape, plain

_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_LEGEND = (
    "hit@1 in percent, differences in points. p is of McNemar's exact test on per-query ranks (~: of Fisher's on the "
    "counts, where a side has no ranks), corrected for all tasks of the comparison (Holm): * < 0.05, ** < 0.01, "
    "*** < 0.001. In brackets the 95% interval, not corrected: bootstrap over each task's queries (~: Newcombe)."
)


def comparison_text(comparisons: Sequence[Comparison], *, markdown: bool = False) -> str:
    """The comparisons of one or more results with the same first one, and what may explain the differences."""
    show = escape if markdown else str
    letters = ["".join(pair) for size in (1, 2) for pair in itertools.product(string.ascii_uppercase, repeat=size)]
    names = [comparisons[0].first, *(comparison.second for comparison in comparisons)]
    key = [f"{'- ' if markdown else ''}{letter}: {show(name)}" for letter, name in zip(letters, names, strict=False)]
    parts = ["\n".join(key), _table(comparisons, letters, markdown=markdown), _LEGEND]
    for comparison, letter in zip(comparisons, letters[1:], strict=False):
        parts += _remarks(comparison, f"{letter} against A", markdown=markdown)
    return "\n\n".join(parts)


def points(difference: float) -> str:
    """A difference with its sign: +0.3."""
    sign = "-" if difference < 0 else "+"
    rounded = one_decimal(abs(difference))
    return f"{sign if rounded != '0.0' else ''}{rounded}"


def probability(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _table(comparisons: Sequence[Comparison], letters: Sequence[str], *, markdown: bool) -> str:
    headers = ["", "A"]
    for letter in letters[1 : len(comparisons) + 1]:
        headers += [letter, f"{letter} − A", "interval", "p"]
    tasks = _rows([{task.task: _task_cells(task) for task in each.tasks} for each in comparisons])
    # comparisons that share other tasks have another mean over them, in a row of its own
    means = _rows(
        [
            {
                (group.group, group.members if group.group == COMMON else ()): _group_cells(group)
                for group in each.groups
            }
            for each in comparisons
        ]
    )
    if markdown:
        rows: list[Any] = [[escape(cell) for cell in row] for row in (*tasks, *means)]
    else:
        rows = [*tasks, SEPARATING_LINE, *means]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers=headers, tablefmt=_style(markdown), disable_numparse=True, colalign=align)


def _rows(columns: Sequence[Mapping[Any, list[str]]]) -> list[list[str]]:
    """A row per key of any comparison: name, A's score, and four cells for each comparison, empty where it lacks it."""
    rows = []
    for key in dict.fromkeys(key for column in columns for key in column):
        present = [column[key] for column in columns if key in column]
        first = next((cells[1] for cells in present if cells[1]), "")
        cells = [cell for column in columns for cell in (column[key][2:] if key in column else [""] * 4)]
        rows.append([present[0][0], first, *cells])
    return rows


def _task_cells(task: TaskDifference) -> list[str]:
    scores = [plain(task.task), one_decimal(task.first), one_decimal(task.second)]
    if task.p is None:
        return [*scores, points(task.difference), "", Method.NONE.value]
    mark = "~" if task.method is Method.UNPAIRED else ""
    stars = next((stars for level, stars in _STARS if task.p < level), "")
    return [*scores, points(task.difference) + stars, _interval(task.interval), mark + probability(task.p)]


def _group_cells(group: GroupDifference) -> list[str]:
    if group.first is None or group.second is None or group.difference is None:
        return [group.title, "", f"{group.done}/{group.total}", "", "", ""]
    scores = one_decimal(group.first), one_decimal(group.second)
    return [group.title, *scores, points(group.difference), _interval(group.interval), ""]


def _style(markdown: bool) -> str:
    return "pipe" if markdown else "simple"


def _interval(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"[{points(interval[0])}, {points(interval[1])}]"


def _remarks(comparison: Comparison, title: str, *, markdown: bool) -> list[str]:
    """What differs between the two beside the scores, and what limits the comparison."""
    show = escape if markdown else str
    problems = [f"{task.task}: {task.problem}; not tested." for task in comparison.tasks if task.problem]
    missing = [
        f"Only in {side}: {', '.join(names)}."
        for side, names in ((comparison.first, comparison.only_first), (comparison.second, comparison.only_second))
        if names
    ]
    lines = [f"- {show(plain(line))}" for line in (*comparison.notes, *missing, *problems)]
    parts = ["\n".join([f"{title}:", "", *lines])] if lines else []
    if comparison.settings:
        rows = [[show(_shown(cell)) for cell in row] for row in comparison.settings]
        headers = ("setting", "A", title.split()[0])
        parts.append(f"{title}, settings that may affect scores:")
        parts.append(tabulate(rows, headers=headers, tablefmt=_style(markdown), disable_numparse=True))
    return parts


def _shown(value: Any) -> str:
    text = "" if value is None else plain(str(value))
    return text if len(text) <= 60 else text[:57] + "..."
