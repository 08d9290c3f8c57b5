"""Ranking against the reference's way, and against the bare matrix product.

One task of 1000 queries × 1000 candidates at dimension 3072, from a pool of 1000 and of 20,000 distinct candidates.
The reference keeps vectors in a dict and stacks and multiplies them query by query; this is that way written anew.

    python -m benchmarks.evaluation.ranking [--json FILE]
"""

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.support.figures import json_option, show
from benchmarks.support.peak_memory import peak_gib, watch
from benchmarks.support.timing import seconds
from mmeb.evaluation.ranking import rank

CPU = torch.device("cpu")
ROWS, WIDTH = 1000, 1000
WAYS = ("ours", "reference", "product")


def task(pool: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((ROWS, dim), dtype=np.float32)
    candidates = rng.standard_normal((pool, dim), dtype=np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    ids = np.stack([rng.choice(pool, WIDTH, replace=False) for _ in range(ROWS)]).astype(np.int32)
    return queries, candidates, np.arange(ROWS, dtype=np.int32), ids


def reference(
    queries: NDArray[np.float32], candidates: NDArray[np.float32], query_ids: NDArray[np.int32], ids: NDArray[np.int32]
) -> int:
    """hit@1 counted as the reference does: a dict of vectors, one stack, product and argmax per query."""
    by_key = {(f"text {position}", f"image {position}"): vector for position, vector in enumerate(candidates)}
    keys = list(by_key)
    hits = 0
    for query, row in zip(query_ids, ids, strict=True):
        stacked = np.stack([by_key[keys[position]] for position in row])
        scores = np.dot(queries[query], stacked.T) / (np.linalg.norm(queries[query]) * np.linalg.norm(stacked, axis=1))
        hits += int(np.argmax(scores) == 0)
    return hits


def measure(way: str, pool: int, dim: int, repeats: int) -> dict[str, float]:
    """Median seconds of one way, and by how much it raised the peak memory of this process."""
    arrays = task(pool, dim)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: rank(*arrays),
        "reference": lambda: reference(*arrays),
        "product": lambda: arrays[0] @ arrays[1].T,
    }
    before = peak_gib(CPU)
    taken = [seconds(ways[way]) for _ in range(repeats)]
    return {"seconds": float(np.median(taken)), "peak MiB": (peak_gib(CPU) - before) * 1024}


@click.command(help=__doc__)
@json_option
@click.option("--pools", default="1000,20000", show_default=True, help="Numbers of distinct candidates.")
@click.option("--dim", default=3072, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--run", nargs=4, type=(str, int, int, int), hidden=True)
def main(json_file: Path | None, pools: str, dim: int, repeats: int, run: tuple[str, int, int, int] | None) -> None:
    if run is not None:
        print(json.dumps(measure(*run)))
        return
    figures = []
    for pool in map(int, pools.split(",")):
        # A process each, so that the peak memory is one way's own.
        runs = {way: json.loads(watch("benchmarks.evaluation.ranking", way, pool, dim, repeats).output) for way in WAYS}
        for way, figure in runs.items():
            ratios = {
                "reference / this": runs["reference"]["seconds"] / figure["seconds"],
                "this / product": figure["seconds"] / runs["product"]["seconds"],
            }
            figures.append({"pool": pool, "way": way, **figure, **ratios})
    show(figures, json_file)


if __name__ == "__main__":
    main()
