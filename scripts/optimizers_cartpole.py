"""Train CartPole with every optimizer at several rates, and print a line of a Markdown table as each one is done.

    python scripts/optimizers_cartpole.py --each-side 0 steps=300_000             # first table of pgkit/optim/README.md
    python scripts/optimizers_cartpole.py steps=200_000                           # second table
    python scripts/optimizers_cartpole.py --seeds 3 --each-side 2 steps=150_000   # a wider range of rates
    python scripts/optimizers_cartpole.py --only npg sgd -- optimizer.max_grad_norm=1.0

The rates of an optimizer are half decades around the one in RATES; clipping and schedule are the configuration's.
"""

import argparse
from statistics import median
from typing import NamedTuple

import pgkit

CONFIG = "cartpole-actor-critic"
RATES = {
    "sgd": 1.0,
    "momentum": 0.1,
    "nesterov": 0.03,
    "rmsprop": 3e-3,
    "rmsprop_tf": 0.02,
    "adagrad": 0.1,
    "adadelta": 5.0,
    "adam": 5e-3,
    "amsgrad": 5e-3,
    "adamw": 5e-3,
    "nadam": 0.01,
    "radam": 0.02,
    "adamax": 0.02,
    "lion": 5e-4,
    "npg": 0.3,
    "trpo": 1.0,
}
"""The middle rate of each optimizer, chosen on seeds 20 to 22."""

ADAM = ["optimizer.critic.name=adam", "optimizer.critic.lr=1e-2"]
"""The configuration's critic."""

SETTINGS = {
    "lion": ["optimizer.beta1=0.95", "optimizer.beta2=0.98", *ADAM],
    "npg": ADAM,
    "trpo": ADAM,
}
"""Settings beside the rate; with other optimizers actor and critic share the rate, and the rest is default."""


class Arm(NamedTuple):
    """An optimizer at one rate, and the final mean return of each seed."""

    optimizer: str
    rate: float
    returns: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings of the configuration, such as steps=150_000")
    parser.add_argument("--only", nargs="+", choices=RATES, default=list(RATES), help="these optimizers")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=200)
    parser.add_argument("--each-side", type=int, default=1, help="half decades below and above the middle")
    arguments = parser.parse_args()
    shared = [*arguments.overrides, "evaluation.points=0", f"seed={arguments.first_seed}", f"seeds={arguments.seeds}"]
    print(
        "| optimizer | best rate | median | min - max | median at the other rates |", "|---|---|---|---|---|", sep="\n"
    )
    for optimizer in arguments.only:
        print(table_row(train(optimizer, arguments.each_side, shared)), flush=True)


def train(optimizer: str, each_side: int, shared: list[str]) -> list[Arm]:
    """Train an optimizer at every rate with every seed, as one population."""
    choices = rates(RATES[optimizer], each_side)
    members = [
        member
        for rate in choices
        for member in pgkit.expand_seeds(pgkit.load_config(CONFIG, [*shared, *settings(optimizer, rate)]))
    ]
    returns = [row["return_mean"] for row in pgkit.train(members, progress=True).table]
    seeds = len(members) // len(choices)
    return [Arm(optimizer, rate, returns[k * seeds : (k + 1) * seeds]) for k, rate in enumerate(choices)]


def rates(middle: float, each_side: int) -> list[float]:
    """List rates that are half a decade apart, rounded to two digits."""
    return [float(f"{middle * 10 ** (step / 2):.1e}") for step in range(-each_side, each_side + 1)]


def settings(optimizer: str, rate: float) -> list[str]:
    """List the overrides of the configuration for an optimizer at a rate."""
    actor = [f"optimizer.name={optimizer}", f"optimizer.lr={rate}"]
    return [*actor, *SETTINGS.get(optimizer, [f"optimizer.critic.lr={rate}"])]


def table_row(arms: list[Arm]) -> str:
    """Write the line of an optimizer: its best rate, and the medians at the other rates."""
    best = max(arms, key=lambda arm: (median(arm.returns), min(arm.returns)))
    others = ", ".join(f"{arm.rate:g}: {median(arm.returns):.0f}" for arm in arms if arm is not best)
    spread = f"{min(best.returns):.0f} - {max(best.returns):.0f}"
    return f"| `{best.optimizer}` | {best.rate:g} | {median(best.returns):.0f} | {spread} | {others or '-'} |"


if __name__ == "__main__":
    main()
