"""Two processes on two cores against one process on one core.

`mmeb run` scores one task of images with a model of 50 M parameters or more, by itself on one core, then under
`torchrun` with two processes on two; each process has one thread and prepares its own batches, so that a core is a
process. What is compared is the time of encoding, which ends when all have all vectors; `command` is that of the whole
command, with the import of libraries and the loading of weights. Both take turns.

    python -m benchmarks.evaluation.processes [--json FILE]
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.support.checkpoints import write_qwen2_vl
from benchmarks.support.figures import json_option, show
from benchmarks.support.photographs import write_photographs
from mmeb.tasks import get_tasks

TASK = "NIGHTS"  # images alone, on both sides


def write_task(folder: Path, queries: int, candidates: int) -> None:
    """A task of photographs, as MMEB-eval lays it out: every query has all candidates."""
    task = get_tasks(TASK)[0]
    names = [path.relative_to(folder).as_posix() for path in write_photographs(folder / TASK, queries + candidates)]
    rows = {
        "qry_text": [str(task.query_prompt(""))] * queries,
        "qry_img_path": names[:queries],
        "tgt_text": [[str(task.target_prompt(""))] * candidates] * queries,
        "tgt_img_path": [names[queries:]] * queries,
    }
    pq.write_table(pa.table(rows), folder / f"{TASK}.parquet")


def score(launcher: Sequence[str], cores: int, model: Path, data: Path, output: Path) -> tuple[float, float]:
    """Seconds of encoding and of the whole command, on the first `cores` of those that there are."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, *launcher, "-m", "mmeb", "run", "--model", str(model), "--adapter", "qwen2-vl"]
    command += ["--option", "image_resolution=none", "--tasks", TASK, "--data", str(data), "--output", str(output)]
    command += ["--workers", "0", "--fresh"]
    started = time.perf_counter()
    subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    seconds = time.perf_counter() - started
    result = json.loads((output / f"{TASK}.json").read_text(encoding="utf-8"))
    return float(result["provenance"]["seconds"]["encode"]), seconds


@click.command(help=__doc__)
@json_option
@click.option("--queries", default=16, show_default=True)
@click.option("--candidates", default=32, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--tiny", is_flag=True, help="A tiny model: does it work?")
def main(json_file: Path | None, queries: int, candidates: int, repeats: int, tiny: bool) -> None:
    launchers = {1: [], 2: ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]}
    seconds: dict[int, list[tuple[float, float]]] = {count: [] for count in launchers}
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary, "data")
        write_task(data, queries, candidates)
        model = write_qwen2_vl(Path(temporary, "model"), "tiny" if tiny else "50m")
        for turn in range(repeats):
            for count, launcher in launchers.items():
                output = Path(temporary, f"run{turn}-{count}")
                seconds[count].append(score(launcher, count, model, data, output))
    figures = []
    for count, runs in seconds.items():
        encoding, command = (statistics.median(column) for column in zip(*runs, strict=True))
        gain = statistics.median(one[0] / many[0] for one, many in zip(seconds[1], runs, strict=True))
        items = queries + candidates
        figures.append({"processes": count, "items": items, "encoding s": encoding, "gain": gain, "command s": command})
    show(figures, json_file)


if __name__ == "__main__":
    main()
