"""Prompts from rows that keep the instruction apart (MMEB_Test_Instruct), as the reference's main branch builds them.

Byte for byte: which white space follows the placeholder, whether a space before a newline goes, and what ends a string
differs by kind of task (VLM2Vec, branch main, commit 6e1e1d4, src/data/eval_dataset/image_*.py).
"""

from mmeb.tasks import PLACEHOLDER, MetaTask, Modality, Prompt, Task


def query_prompt(task: Task, instruction: str, text: str) -> Prompt:
    """The prompt of a query."""
    bare = instruction.replace(PLACEHOLDER, "")
    if task.query is Modality.TEXT:
        end = "\n\n" if task.name == "VisDial" else "\n"
        prompt = f"{instruction} {text}{end}"
    elif task.target is Modality.TEXT and task.meta_task is not MetaTask.VQA:
        prompt = _tidy(_spaced(PLACEHOLDER, bare, text)) + "\n"
    else:
        prompt = _tidy(_spaced(PLACEHOLDER, "\n" + bare.strip(), text)) + "\n"
    return Prompt.parse(prompt, bare.strip())


def target_prompt(task: Task, instruction: str, text: str, has_caption: bool) -> Prompt:
    """The prompt of a candidate; `has_caption` says whether the first candidate of its row has a text.

    Where it has none, the others' texts are left out as well.
    """
    if task.target is Modality.TEXT:
        return Prompt(text=text)
    bare = instruction.replace(PLACEHOLDER, "")
    if has_caption:
        prompt = _tidy(f"{PLACEHOLDER} {bare} {text}") + "\n"
    else:
        prompt = _tidy(f"{PLACEHOLDER} {bare}") + ("\n" if task.query is Modality.TEXT else "")
    return Prompt.parse(prompt, bare.strip())


def _spaced(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _tidy(prompt: str) -> str:
    return prompt.replace(" \n", "\n")
