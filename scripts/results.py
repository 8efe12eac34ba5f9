"""Measure the README's results table: train every row on ten fresh seeds, and print the table as Markdown.

    python scripts/results.py                         # all rows, two at a time, into runs/results-<row>
    python scripts/results.py cartpole-reinforce      # one row
    python scripts/results.py --print                 # only print what the runs directory holds

The seeds 200 ... 209 were not used to choose any setting.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

RUNS = Path("runs")
SEEDS = ["seed=200", "seeds=10"]


class Row(NamedTuple):
    """A row of the table: a shipped configuration, what is changed, and the mean return that counts as solved."""

    config: str
    overrides: list[str]
    solved: float
    wanted: int


ROWS = {
    "cartpole-reinforce": Row("cartpole-reinforce", [], 475, 9),
    "cartpole-actor-critic": Row("cartpole-actor-critic", [], 475, 9),
    "lunarlander-actor-critic": Row("lunarlander-actor-critic", [], 200, 7),
    "lunarlander-reinforce": Row("lunarlander-reinforce", [], 200, 5),
    "sgd": Row("cartpole-actor-critic", ["steps=999_000", "optimizer.name=sgd", "optimizer.lr=0.5"], 475, 5),
    "momentum": Row("cartpole-actor-critic", ["steps=999_000", "optimizer.name=momentum", "optimizer.lr=0.05"], 475, 5),
    "rmsprop": Row("cartpole-actor-critic", ["steps=999_000", "optimizer.name=rmsprop", "optimizer.lr=4e-3"], 475, 5),
    "adam": Row("cartpole-actor-critic", ["steps=999_000", "optimizer.name=adam", "optimizer.lr=3e-3"], 475, 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="which rows (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="rows that run at the same time")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    arguments = parser.parse_args()
    names = arguments.rows or list(ROWS)
    if not arguments.only_print:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            codes = list(pool.map(run, names))
        if any(codes):
            sys.exit("a row failed")
    print("| row | command | steps per run | solved | mean over seeds (min - max) | wall time |")
    print("|---|---|---|---|---|---|")
    for name in names:
        print(table_line(name))


def run(name: str) -> int:
    """Train a row, its output in ``runs/results-<name>.log``; returns the exit code."""
    RUNS.mkdir(exist_ok=True)
    row = ROWS[name]
    command = [sys.executable, "-m", "pgkit", "train", row.config, *row.overrides, *SEEDS, f"name=results-{name}"]
    with open(RUNS / f"results-{name}.log", "w", encoding="utf-8") as log:
        return subprocess.run([*command, "--overwrite"], stdout=log, stderr=subprocess.STDOUT, check=False).returncode


def table_line(name: str) -> str:
    """What the directory of a row's run says."""
    row, directory = ROWS[name], RUNS / f"results-{name}"
    result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    returns = [member["return_mean"] for member in result["members"]]
    steps = max(member["env_steps"] for member in result["members"])
    solved = sum(mean >= row.solved for mean in returns)
    command = " ".join(["pgkit train", row.config, *row.overrides, *SEEDS])
    mean = f"{sum(returns) / len(returns):.1f} ({min(returns):.1f} - {max(returns):.1f})"
    wall = f"{result['wall_seconds'] / 60:.1f} min"
    return f"| {name} | `{command}` | {steps:,} | {solved} of {len(returns)} >= {row.solved:.0f} | {mean} | {wall} |"


if __name__ == "__main__":
    main()
