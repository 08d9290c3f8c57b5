"""The table at the end of a run."""

from functools import partial

from tabulate import tabulate

from mmeb.results.averages import averages, mean_or_coverage, one_decimal, percent
from mmeb.results.schema import RunResult
from mmeb.tasks import GROUP_TITLES, PRIMARY_METRIC, TASKS_BY_NAME, MetaTask, task_order

_RUN_GROUPS = (*(meta.value for meta in MetaTask), "ind", "ood", "overall")

_plain_table = partial(tabulate, tablefmt="simple", disable_numparse=True)
_RUN_ALIGN = ("left", "left", "left", "right", "right")


def run_table(result: RunResult) -> str:
    """The table at the end of `mmeb run`: a row per task, then the groups; hit@1 in percent.

    A group with missing tasks shows how many it has. Custom tasks come last and enter no group.
    """
    scores = {name: percent(task.metrics[PRIMARY_METRIC]) for name, task in result.tasks.items()}
    rows = []
    for name in sorted(scores, key=task_order):
        task = TASKS_BY_NAME.get(name)
        meta = task.meta_task.value if task else "custom task"
        split = ("IND" if task.in_distribution else "OOD") if task else ""
        rows.append((name, meta, split, one_decimal(scores[name]), result.tasks[name].provenance.get("ties", "")))
    means = averages(scores)
    body = _plain_table(rows, headers=("task", "meta-task", "", PRIMARY_METRIC, "ties"), colalign=_RUN_ALIGN)
    groups = [(GROUP_TITLES[group], mean_or_coverage(means[group], scores, group)) for group in _RUN_GROUPS]
    summary = _plain_table(groups, headers=("mean of", PRIMARY_METRIC), colalign=("left", "right"))
    notice = ["Demo results: they say that the tools work, not how good a model is.", ""] if result.is_demo else []
    if any(task.num_pred < task.num_data for task in result.tasks.values()):
        notice += ["Only a part of the queries was scored: these are no results to compare or submit.", ""]
    return "\n".join([*notice, body, "", summary])
