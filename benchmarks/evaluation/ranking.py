"""Ranking against the reference's way, and against the bare matrix product.

One task of 1000 queries × 1000 candidates at dimension 3072, from a pool of 1000 and of 20,000 distinct candidates.
The reference keeps vectors in a dict and stacks and multiplies them query by query; this is that way written anew.

    python -m benchmarks.evaluation.ranking [--json FILE]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

DIM, ROWS, WIDTH = 3072, 1000, 1000
POOLS = (1_000, 20_000)
WAYS = ("ours", "reference", "product")
REPEATS = 5


def task(pool: int) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((ROWS, DIM), dtype=np.float32)
    candidates = rng.standard_normal((pool, DIM), dtype=np.float32)
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


def measure(way: str, pool: int) -> dict[str, float]:
    from mmeb.evaluation.ranking import rank

    arrays = task(pool)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: rank(*arrays),
        "reference": lambda: reference(*arrays),
        "product": lambda: arrays[0] @ arrays[1].T,
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ways[way]()
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": float(np.median(seconds)), "peak_mib": (after - before) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "POOL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        way, pool = arguments.measure
        print(json.dumps(measure(way, int(pool))))
        return
    figures = []
    for pool in POOLS:
        # A process each, so that the peak memory is one way's own.
        runs = {
            way: json.loads(
                subprocess.check_output(
                    [sys.executable, "-m", "benchmarks.evaluation.ranking", "--measure", way, str(pool)]
                )
            )
            for way in WAYS
        }
        figures += [
            {
                "pool": pool,
                "way": way,
                **run,
                "reference_over_this": runs["reference"]["seconds"] / run["seconds"],
                "this_over_product": run["seconds"] / runs["product"]["seconds"],
            }
            for way, run in runs.items()
        ]
    print(tabulate(figures, headers="keys", floatfmt=".3f"))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
