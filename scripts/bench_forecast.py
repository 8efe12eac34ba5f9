"""Compare what ``pgkit compare --dry-run`` says a comparison takes with what it takes, start and report included.

python scripts/bench_forecast.py                                 # every row
python scripts/bench_forecast.py --only mixed wide --workers 1   # some rows, one process
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tomli_w

from pgkit.compare import load_analysis
from pgkit.compare.api import dry_run
from pgkit.compare.execution.forecast import format_minutes
from pgkit.system.cpu import available_cpus

ACROBOT = {
    "question": "Does a forecast hold where episodes become shorter, and Gymnasium steps the environments?",
    "agents": ["actor-critic"],
    "optimizers": ["sgd", "adam"],
    "learning_rates": [1e-3, 1e-2],
    "evaluation_seeds": 3,
    "evaluation": {"points": 5, "episodes": 3, "final_episodes": 10},
    "steps": 6_000,
    "envs_per_member": 8,
    "environments": {
        "Acrobot-v1": {
            "random_return": -500,
            "reference_return": -80,
            "threshold": -100,
            "agents": {"actor-critic": {"rollout_steps": 32}},
        }
    },
}
SHORT = ["learning_rates=[0.001,0.01,0.1]", 'optimizers=["sgd","adam"]']
CASES = {
    "quick": ("compare-cartpole", []),
    "reinforce": ("compare-cartpole", ["steps=20_000", 'agents=["reinforce"]']),
    "mixed": (
        "compare-cartpole",
        ["steps=20_000", 'agents=["reinforce"]', 'optimizers=["sgd","npg","torch.optim:Adam"]'],
    ),
    "wide": ("compare-cartpole", ["steps=20_000", 'agents=["actor-critic"]', "policy.hidden=[256,256]", *SHORT]),
    "envs": ("compare-cartpole", ["steps=50_000", "envs_per_member=128", 'optimizers=["sgd","adam"]']),
    "tuned": ("compare-cartpole", ["steps=50_000", 'track="all tuned"', "settings=8"]),
    "acrobot": ("acrobot.toml", []),
    "lunarlander": ("compare-lunarlander", ["steps=20_000", "evaluation_seeds=3", "evaluation.points=10", *SHORT]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(CASES), nargs="+", default=list(CASES))
    parser.add_argument("--workers", type=int, default=available_cpus())
    arguments = parser.parse_args()
    print("| comparison | trial, s | forecast, min | measured, min | runs, at most | runs |\n|---|---|---|---|---|---|")
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as directory:
            print(row(name, *CASES[name], arguments.workers, Path(directory)), flush=True)


def row(name: str, comparison: str, words: Sequence[str], workers: int, directory: Path) -> str:
    """The forecast of a comparison beside what it took, as a row of a table."""
    if comparison.endswith(".toml"):
        comparison = str(directory / comparison)
        Path(comparison).write_text(tomli_w.dumps(ACROBOT))
    forecast = dry_run(comparison, words, workers)[1]
    low, high = (format_minutes(forecast.rows[-1][key]) for key in ("minutes_from", "minutes_to"))
    command = [sys.executable, "-m", "pgkit", "compare", comparison, *words, "--workers", str(workers), "--out", "out"]
    started = time.perf_counter()
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    minutes = format_minutes((time.perf_counter() - started) / 60)
    runs = len(load_analysis(directory / "out").tables["runs"])
    counts = f"{forecast.rows[-1]['runs']} | {runs}"
    processes = "1 worker" if workers == 1 else f"{workers} workers"
    trial = f"{forecast.trial_seconds:.0f}"
    return f"| {name}, {processes} | {trial} | {low} to {high} | {minutes} | {counts} |"


if __name__ == "__main__":
    main()
