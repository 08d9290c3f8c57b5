"""Custom tasks: a YAML file beside rows in MMEB-eval's columns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmeb.errors import MmebError
from mmeb.inputs import parse
from mmeb.tasks.task import MetaTask, Modality, Task

RESERVED_NAMES = frozenset({"run", "results"})  # a run folder's own files: run.json, results.json
MAX_NAME_BYTES = 200  # a file name holds 255, of which "<task>.ranks.parquet" and its temporary form take some


@dataclass(frozen=True)
class TaskFile:
    """The fields of a task file: those of Task; `rows` (parquet or JSONL) and `images` (a folder, zip or tar) are
    relative to the file."""

    name: str
    query: Modality
    target: Modality
    rows: Path
    meta_task: MetaTask = MetaTask.RETRIEVAL
    query_instruction: str = ""
    target_instruction: str = ""
    images: Path | None = None


def load_task(path: Path) -> Task:
    """Read a task file.

    Raises MmebError for a missing file, an unknown, missing or ill-typed field, rows that do not exist, and a name that
    can't be the name of a result file.
    """
    fields = parse(TaskFile, _read(path), str(path), noun="field", strict=True)
    _check_name(path, fields.name)
    rows = path.parent / fields.rows
    if not rows.is_file():
        raise MmebError(f"{path}: its rows {rows} do not exist.")
    return Task(
        name=fields.name,
        meta_task=fields.meta_task,
        query=fields.query,
        target=fields.target,
        query_instruction=fields.query_instruction,
        target_instruction=fields.target_instruction,
        rows=rows,
        images=rows.parent if fields.images is None else path.parent / fields.images,
    )


def _check_name(path: Path, name: str) -> None:
    if not name.isprintable() or any(character in name for character in "/\\") or name[:1] in {"", "."}:
        raise MmebError(f"{path}: {name!r} can't be a file's name, as a task's name must be.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise MmebError(f"{path}: the name {name[:20]!r}… is longer than {MAX_NAME_BYTES} bytes: shorten it.")
    if name.lower() in RESERVED_NAMES:
        raise MmebError(f"{path}: {name!r} is the name of a run's own file: give the task another name.")


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MmebError(f"The task file {path} can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MmebError(f"The task file {path} is not valid YAML: {' '.join(str(error).split())}") from None
