"""Custom tasks: a YAML file beside rows in MMEB-eval's columns."""

from pathlib import Path
from typing import Any

import yaml

from mmeb.errors import MmebError
from mmeb.tasks.task import MetaTask, Modality, Task

RESERVED_NAMES = frozenset({"run", "results"})  # a run folder's own files: run.json, results.json
MAX_NAME_BYTES = 200  # a file name holds 255, of which "<task>.ranks.parquet" and its temporary form take some

_REQUIRED = {"name", "query", "target", "rows"}
_OPTIONAL = {"meta_task", "query_instruction", "target_instruction", "images"}


def load_task(path: Path) -> Task:
    """Read a task file.

    Its fields are Task's (`name`, `meta_task`, `query`, `target`, `query_instruction`, `target_instruction`), `rows`
    (a parquet or JSONL file) and `images` (a folder, zip or tar), both relative to the YAML file. Raises MmebError
    for a missing file, and for an unknown, missing or ill-typed field.
    """
    fields = _read(path)
    unknown, missing = fields.keys() - _REQUIRED - _OPTIONAL, _REQUIRED - fields.keys()
    if unknown or missing:
        wrong = [f"unknown field {name!r}" for name in sorted(unknown)]
        wrong += [f"missing field {name!r}" for name in sorted(missing)]
        raise MmebError(f"{path}: {', '.join(wrong)}; docs/add-data.md shows a task file.")
    for name, value in fields.items():
        if not isinstance(value, str):
            raise MmebError(f"{path}: field {name!r} is to be a string, not {value!r}.")
    _check_name(path, fields["name"])
    rows = path.parent / fields["rows"]
    if not rows.is_file():
        raise MmebError(f"{path}: its rows {rows} do not exist.")
    try:
        return Task(
            name=fields["name"],
            meta_task=MetaTask(fields.get("meta_task", MetaTask.RETRIEVAL)),
            query=Modality(fields["query"]),
            target=Modality(fields["target"]),
            query_instruction=fields.get("query_instruction", ""),
            target_instruction=fields.get("target_instruction", ""),
            rows=rows,
            images=path.parent / fields["images"] if "images" in fields else rows.parent,
        )
    except ValueError as error:
        raise MmebError(f"{path}: {error}; modalities are text, image, image+text.") from None


def _check_name(path: Path, name: str) -> None:
    """Raise MmebError for a name that can't be the name of a result file."""
    if not name.isprintable() or any(character in name for character in "/\\") or name[:1] in {"", "."}:
        raise MmebError(f"{path}: {name!r} can't be a file's name, which a task's name has to be.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise MmebError(f"{path}: the name {name[:20]!r}… is longer than {MAX_NAME_BYTES} bytes: shorten it.")
    if name.lower() in RESERVED_NAMES:
        raise MmebError(f"{path}: {name!r} is the name of a run's own file: give the task another name.")


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise MmebError(f"The task file {path} can't be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MmebError(f"The task file {path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise MmebError(f"The task file {path} is to hold a mapping of fields; docs/add-data.md shows one.")
    return fields
