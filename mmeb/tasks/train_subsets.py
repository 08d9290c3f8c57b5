"""MMEB-train: its subsets, its splits, and the instructions of each subset."""

from mmeb.tasks.registry import TASKS

SPLITS = ("original", "diverse_instruction")
TRAIN_SUBSETS = tuple(task.train_subset for task in TASKS if task.train_subset is not None)

# MMEB-train's split `original` words one query instruction otherwise than MMEB-eval (archive/instruction_dict.py in the
# reference's branch v1).
_REWORDED = {"MSCOCO": "Select the portion of the image that isolates the object labeled as"}


def instructions(subset: str) -> tuple[str, str]:
    """The instructions of a subset's queries and targets in the split `original`; empty for custom data."""
    for task in TASKS:
        if task.train_subset == subset:
            return _REWORDED.get(subset, task.query_instruction), task.target_instruction
    return "", ""
