"""Do verdicts tell faults apart? Runs whose fault is known, and what a diagnosis calls them.

    python scripts/diagnose_verdicts.py cartpole                   # about 7 minutes of one core
    python scripts/diagnose_verdicts.py lunarlander --first-seed 32000  # about 20 minutes

Each fault is trained with so many seeds as one population: a good learning rate, ten times it, a tenth of it, a critic
that never learns (value_coef 0), and an actor whose first outputs are so large that hardly any action is left to
chance. Every member is scanned with few copies and episodes (sections A, C and E of ``pgkit/diagnose/README.md``) and
classified by ``pgkit.diagnose.classify``, whose rules were set on other seeds (``--first-seed 30000``).

What has been trained and measured is kept below ``--out``: a stopped script goes on, and other rules need no other
measurements. Delete it after changes to the training or to what is measured.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pgkit
from pgkit.config.schema import TrainConfig
from pgkit.diagnose.api import measure_run
from pgkit.diagnose.classify import deciding_rule, signs
from pgkit.diagnose.parts import Parts
from pgkit.diagnose.points import open_run
from pgkit.diagnose.results import Diagnosis
from pgkit.diagnose.settings import Settings
from pgkit.runs.directory import is_finished

FAULTS = {
    "healthy": [],
    "step too large": ["optimizer.lr={ten_times}"],
    "step too small": ["optimizer.lr={tenth}"],
    "critic wrong": ["agent.value_coef=0"],
    "saturated": ["policy.gains={gains}"],
}
"""Overrides of each fault, by the label that it should get."""

SATURATED_GAIN = 1000.0
"""Of the actor's last layer, whose usual gain is .01."""

TASKS = {
    "cartpole": ("cartpole-actor-critic", []),
    "lunarlander": ("lunarlander-actor-critic", ["steps=1_000_000", "optimizer.lr=0.01"]),
}
"""The shipped configurations. LunarLander's has half of its steps, to be affordable, and the rate that the published
comparison selected for that budget."""

CHECKPOINTS = 50
KEPT = (
    f"checkpoint_points={CHECKPOINTS}",
    f"keep_checkpoints={CHECKPOINTS + 1}",
    "evaluation.points=1",
    "evaluation.final_episodes=20",
)
"""Many checkpoints, few evaluations: neither changes the training."""

SMALL = Settings(critical=0, copies=6, episodes=10, return_episodes=50, networks=False)
SETTINGS = {
    "cartpole": replace(SMALL, shares=(0.0, 0.05, 0.2, 0.9)),
    "lunarlander": replace(SMALL, shares=(0.0, 0.2, 0.9), budget_share=0.0),
}
"""What is measured. LunarLander's K updates, half of a scan's cost there, decided no label on the seeds from 30,000."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=20, help="of each fault")
    parser.add_argument("--first-seed", type=int, default=33_000)
    parser.add_argument("--copies", type=int, default=SMALL.copies, help="of each point")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--out", type=Path, default=Path("runs/diagnose-verdicts"))
    arguments = parser.parse_args()
    settings = replace(SETTINGS[arguments.task], copies=arguments.copies)
    labels: dict[str, Counter[str]] = {}
    for fault in arguments.only:
        name = f"{arguments.task}-{fault.replace(' ', '-')}-{arguments.first_seed}"
        run = trained(arguments.task, fault, arguments.seeds, arguments.first_seed, arguments.out / name)
        rows = judged(run, settings, arguments.workers)
        (arguments.out / f"{name}.json").write_text(json.dumps(rows, indent=1))
        labels[fault] = Counter(row["label"] for row in rows)
        print(f"{fault}: {dict(labels[fault])}", flush=True)
    print_table(labels)


def trained(task: str, fault: str, seeds: int, first_seed: int, place: Path) -> Path:
    """The run with this fault, trained unless it is there."""
    if not (place.exists() and is_finished(place)):
        config, changes = TASKS[task]
        base = pgkit.load_config(config, changes)
        words = [word.format(**numbers(base)) for word in FAULTS[fault]]
        seed_list = [*range(first_seed, first_seed + seeds)]
        settings = pgkit.load_config(config, [*changes, *words, *KEPT, f"seeds={seed_list}"])
        pgkit.train(settings, place, overwrite=place.exists())
    return place


def numbers(base: TrainConfig) -> dict[str, Any]:
    """What overrides are made with."""
    gains = [2**0.5] * len(base.policy.hidden) + [SATURATED_GAIN]
    return {"ten_times": 10 * base.optimizer["lr"], "tenth": base.optimizer["lr"] / 10, "gains": gains}


def judged(place: Path, settings: Settings, workers: int) -> list[dict[str, Any]]:
    """A row for each member: its label, the rule that decided, and the signs."""
    with open_run(place, settings.shares) as run:
        config = run.configs[0]
        parts = Parts(place.parent / f"{place.name}-parts", repr(replace(settings, shares=())))
        diagnosis = measure_run(run, range(len(run.labels)), settings, parts, workers, progress=True)
        updates = config.steps / (config.envs_per_member * (config.rollout_steps or 1))
    return [row_of(diagnosis, label, updates) for label in run.labels]


def row_of(diagnosis: Diagnosis, label: str, updates: float) -> dict[str, Any]:
    points = [point for point in diagnosis.points if point.member == label]
    spoken = [verdict for verdict in diagnosis.verdicts if verdict.member == label]
    of_member = signs(spoken, points, diagnosis.settings["reference_return"], updates)
    rule = deciding_rule(of_member)
    final = points[-1].quantities["return/mean"].value
    decided = {"label": "not resolved", "rule": ""} if rule is None else {"label": rule.label, "rule": rule.name}
    return {"member": label, "return": final, **decided, "verdicts": [verdict.rule for verdict in spoken], **of_member}


def print_table(labels: dict[str, Counter[str]]) -> None:
    """The confusion table: faults by rows, labels by columns."""
    columns: Sequence[str] = [*FAULTS, "not resolved"]
    print("| fault | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for fault, counts in labels.items():
        print(f"| {fault} | " + " | ".join(str(counts[label]) for label in columns) + " |")
    right = sum(counts[fault] for fault, counts in labels.items())
    print(f"right: {right} of {sum(counts.total() for counts in labels.values())}")


if __name__ == "__main__":
    main()
