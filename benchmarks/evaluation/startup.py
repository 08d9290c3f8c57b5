"""How long `mmeb --help` and `mmeb tasks` take, against an interpreter that does nothing.

python -m benchmarks.evaluation.startup [--runs 20]
"""

import argparse
import statistics
import subprocess
import sys
import time

from tabulate import tabulate

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "mmeb --help": ["-m", "mmeb", "--help"],
    "mmeb tasks": ["-m", "mmeb", "tasks"],
    "mmeb models": ["-m", "mmeb", "models"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):  # in turn, so that a machine that slows down slows all of them
        for name, arguments in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    base = statistics.median(seconds["python -c pass"])
    rows = [(name, statistics.median(times), statistics.median(times) / base) for name, times in seconds.items()]
    print(tabulate(rows, headers=("command", "median seconds", "over python -c pass"), floatfmt=".3f"))


if __name__ == "__main__":
    main()
