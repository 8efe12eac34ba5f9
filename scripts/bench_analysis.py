"""How long a comparison's analysis and report take, and how much memory, on synthetic results of real shape.

python scripts/bench_analysis.py                  # 840 runs rendered; 5,000 runs analysed
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from pgkit.compare.analysis.analyse import analyse
from pgkit.compare.plan.baselines import ScoreScale
from pgkit.compare.plan.plan import Plan, Run, read_plan
from pgkit.compare.report.html import write_report
from pgkit.compare.selection.stages import stages

SCALE = {"CartPole-v1": ScoreScale(22.2, 500, 475)}
BASELINES = pd.DataFrame(
    [{"environment": "CartPole-v1", "policy": "random", "episodes": 1000, "return_mean": 22.2, "return_sd": 12.0}]
)
PROVENANCE = {"versions": {}, "sessions": []}

SIZES = {
    "render": ["tier=standard", "tuning_seeds=6", "evaluation_seeds=29"],
    "analyse": ["tier=publication", "tuning_seeds=46", "evaluation_seeds=100"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SIZES))
    chosen = parser.parse_args().only
    for name in [chosen] if chosen else SIZES:
        plan = read_plan("compare-cartpole", SIZES[name])
        stored = synthetic(plan)
        started = time.perf_counter()
        analysis = analyse(plan, SCALE, BASELINES, stored, PROVENANCE)
        analysed = time.perf_counter()
        line = f"{name}: {len(stored):,} runs, analysed in {analysed - started:.1f} s"
        if name == "render":
            with tempfile.TemporaryDirectory() as directory:
                page = write_report(analysis, Path(directory))
                size = page.stat().st_size / 1e6
            line += f", rendered in {time.perf_counter() - analysed:.1f} s ({size:.1f} MB page)"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{line}, peak memory {peak:,.0f} MB")


def synthetic(plan: Plan) -> pd.DataFrame:
    """Stored results of every run that the plan asks for; each arm is best at a rate of its own in the grid."""
    stored = pd.DataFrame(columns=list(Run._fields))
    while todo := stages(plan, SCALE, stored)[-1].todo:
        rows = pd.DataFrame([_row(plan, run) for run in todo])
        stored = pd.concat([stored, rows], ignore_index=True) if len(stored) else rows
    return stored


def _row(plan: Plan, run: Run) -> dict[str, object]:
    rng = np.random.default_rng([run.seed, int(1e7 * run.lr), list(plan.arms).index(run.optimizer)])
    best = plan.rates[len(plan.rates) // 2 + list(plan.arms).index(run.optimizer) - 1]
    level = np.exp(-(np.log10(run.lr / best) ** 2)) * rng.uniform(0.7, 1.1)
    returns = 22.2 + 450 * level * np.linspace(0, 1, 51) ** 0.3 + rng.normal(0, 15, 51)
    final = returns[-1] + rng.normal(0, 30, 100)
    row = {"diverged": rng.random() < 0.02, "env_steps": 200_000, "at": np.linspace(0, 200_000, 51).tolist()}
    return {**run._asdict(), **row, "returns": returns.tolist(), "final": final.tolist(), "greedy": final.tolist()}


if __name__ == "__main__":
    main()
