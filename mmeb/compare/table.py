"""A comparison as a table, for the terminal and in Markdown."""

import string
from collections.abc import Sequence
from typing import Any

from tabulate import SEPARATING_LINE, tabulate

from mmeb.compare.compare import Comparison, GroupDifference, Method, TaskDifference
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
    letters = [*string.ascii_uppercase, *(f"A{letter}" for letter in string.ascii_uppercase)]
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
    names = list(dict.fromkeys(task.task for comparison in comparisons for task in comparison.tasks))
    groups = list(dict.fromkeys(group.group for comparison in comparisons for group in comparison.groups))
    tasks = [_task_row(name, comparisons) for name in names]
    means = [_group_row(group, comparisons) for group in groups]
    align = ["left", *["right"] * (len(headers) - 1)]
    if markdown:
        rows = [[escape(cell) for cell in row] for row in (*tasks, *means)]
        return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=align)
    lined = [*tasks, SEPARATING_LINE, *means]
    return tabulate(lined, headers=headers, tablefmt="simple", disable_numparse=True, colalign=align)


def _task_row(name: str, comparisons: Sequence[Comparison]) -> list[str]:
    found = [next((task for task in each.tasks if task.task == name), None) for each in comparisons]
    first = next(one_decimal(task.first) for task in found if task is not None)
    return [plain(name), first, *(cell for task in found for cell in _task_cells(task))]


def _task_cells(task: TaskDifference | None) -> list[str]:
    if task is None:
        return ["", "", "", ""]
    cells = [one_decimal(task.second), points(task.difference)]
    if task.p is None:
        return [*cells, "", Method.NONE.value]
    mark = "~" if task.method is Method.UNPAIRED else ""
    stars = next((stars for level, stars in _STARS if task.p < level), "")
    return [cells[0], cells[1] + stars, _interval(task.interval), mark + probability(task.p)]


def _group_row(name: str, comparisons: Sequence[Comparison]) -> list[str]:
    found = [next((group for group in each.groups if group.group == name), None) for each in comparisons]
    title = next(group.title for group in found if group is not None)
    first = next((one_decimal(group.first) for group in found if group is not None and group.first is not None), "")
    return [title, first, *(cell for group in found for cell in _group_cells(group))]


def _group_cells(group: GroupDifference | None) -> list[str]:
    if group is None:
        return ["", "", "", ""]
    if group.second is None or group.difference is None:
        return [f"{group.done}/{group.total}", "", "", ""]
    return [one_decimal(group.second), points(group.difference), _interval(group.interval), ""]


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
        headers, style = ("setting", "A", title[:1]), "pipe" if markdown else "simple"
        parts.append(f"{title}, settings that may affect scores:")
        parts.append(tabulate(rows, headers=headers, tablefmt=style, disable_numparse=True))
    return parts


def _shown(value: Any) -> str:
    text = "" if value is None else plain(str(value))
    return text if len(text) <= 60 else text[:57] + "..."
