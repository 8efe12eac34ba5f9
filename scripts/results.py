"""Train the shipped configurations on fresh seeds, and settings around them; write the tables of ``configs/README.md``.

    python scripts/results.py                             # everything, into runs/results
    python scripts/results.py lunarlander-actor-critic    # one configuration and what is around it
    python scripts/results.py --shipped                   # the shipped settings alone
    python scripts/results.py --print                     # only print the tables of what runs/results holds

Rows are stored one by one, so a second call goes on where the first one was stopped. The score of a seed is the mean
return of 100 episodes after training. "Greedy" takes the most likely actions. LunarLander's shipped settings are also
evaluated in Gymnasium's own environment. No seed from 20,000 on has been used to choose a setting.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from rich.progress import Progress

import pgkit

PLACE = Path("runs/results")
EPISODES = 100


class Shipped(NamedTuple):
    """A shipped configuration.

    Attributes:
        solved: the mean return that counts as solved.
        seeds: sets of fresh seeds, first seed and count.
        around: overrides, each measured on the first seeds of the first set.
        in_gymnasium: the shipped settings are also evaluated in Gymnasium's own environment.
    """

    solved: float
    seeds: Sequence[tuple[int, int]]
    around: Sequence[str]
    in_gymnasium: bool = False


ALONE = [(20_000, 400)]
TWICE = [(20_000, 20), (21_000, 20)]

CONFIGS = {
    "cartpole-reinforce": Shipped(
        475,
        ALONE,
        [
            "steps=496_000",
            "envs_per_member=2",
            "envs_per_member=8",
            "optimizer.lr=3e-3",
            "optimizer.lr=8e-3",
            "optimizer.critic.lr=5e-3",
            "optimizer.critic.lr=0.05",
            "optimizer.schedule.lr=constant",
            "optimizer.max_grad_norm=none",
            "agent.gamma=0.98",
            "agent.gamma=1.0",
        ],
    ),
    "cartpole-actor-critic": Shipped(
        475,
        ALONE,
        [
            "steps=499_000",
            "envs_per_member=4",
            "envs_per_member=16",
            "rollout_steps=16",
            "rollout_steps=64",
            "agent.lam=0.95",
            "agent.gamma=0.98",
            "optimizer.lr=1e-3",
            "optimizer.lr=6e-3",
            "optimizer.beta1=0.9",
            "optimizer.critic.lr=3e-3",
            "optimizer.critic.lr=0.03",
            "optimizer.schedule.lr=constant",
            "optimizer.max_grad_norm=none",
            "optimizer.name=sgd optimizer.lr=0.5 steps=999_000",
            "optimizer.name=momentum optimizer.lr=0.05 steps=999_000",
            "optimizer.name=rmsprop optimizer.lr=4e-3 steps=999_000",
        ],
    ),
    "cartpole-ppo": Shipped(475, [(20_000, 20)], ["epochs=1", "minibatches=1"]),
    "acrobot-ppo": Shipped(-100, [(20_000, 20)], ["epochs=4"]),
    "pendulum-ppo": Shipped(-200, [(20_000, 20)], ["epochs=4"]),
    "mountaincar-ppo": Shipped(-10, [(20_000, 20)], ["epochs=1"]),
    "lunarlander-ppo": Shipped(200, TWICE, ["epochs=1", "steps=297_000"], in_gymnasium=True),
    "lunarlander-actor-critic": Shipped(
        200,
        TWICE,
        [
            "steps=998_000",
            "steps=998_000 policy.activation=tanh optimizer.lr=6e-3",
            "policy.activation=tanh",
            "rollout_steps=64",
            "agent.gamma=0.995",
            "agent.lam=0.95",
            "env.reward_scale=1",
            "optimizer.lr=1.5e-3",
            "optimizer.lr=6e-3",
            "optimizer.critic.lr=3e-3",
            "optimizer.schedule.lr=constant",
            "optimizer.max_grad_norm=none",
        ],
        in_gymnasium=True,
    ),
    "lunarlander-reinforce": Shipped(
        200,
        TWICE,
        [
            "steps=1_984_000",
            "policy.activation=tanh",
            "envs_per_member=8",
            "agent.gamma=0.995",
            "env.reward_scale=1",
            "optimizer.lr=3.5e-3",
            "optimizer.beta1=0.9",
            "optimizer.critic.lr=7e-3",
            "optimizer.schedule.lr=constant",
        ],
        in_gymnasium=True,
    ),
}


class Row(NamedTuple):
    """One line of a table: a configuration with overrides, on some seeds."""

    config: str
    overrides: str
    first_seed: int
    seeds: int

    @property
    def name(self) -> str:
        changes = self.overrides.replace("optimizer.", "").replace(" ", "-").replace("=", "-") or "shipped"
        return f"{self.config}-{changes}-{self.first_seed}"

    @property
    def stored(self) -> Path:
        return PLACE / f"{self.name}.json"

    def measure(self) -> dict[str, Any]:
        """Train and evaluate."""
        overrides = [*self.overrides.split(), f"seed={self.first_seed}", f"seeds={self.seeds}", "evaluation.points=20"]
        directory = PLACE / self.name
        result = pgkit.train(pgkit.load_config(self.config, overrides), directory, overwrite=True)
        measured = {
            "steps": max(row["env_steps"] for row in result.table),
            "wall_seconds": result.wall_seconds,
            "sampled": [row["return_mean"] for row in result.table],
            "greedy": returns(directory, deterministic=True),
        }
        if not self.overrides and CONFIGS[self.config].in_gymnasium:
            measured["gymnasium"] = returns(directory, backend="gymnasium")
            measured["gymnasium greedy"] = returns(directory, deterministic=True, backend="gymnasium")
        return measured


def returns(directory: Path, **options: Any) -> list[float]:
    """Mean return of each seed in another evaluation of a run."""
    return [row["return_mean"] for row in pgkit.evaluate_run(directory, EPISODES, **options).table]


def rows_of(name: str, shipped_only: bool) -> Iterator[Row]:
    """The shipped settings on each set of seeds, then what is around them on 20."""
    shipped = CONFIGS[name]
    for first, count in shipped.seeds:
        yield Row(name, "", first, count)
    if not shipped_only:
        first, count = shipped.seeds[0]
        yield from (Row(name, overrides, first, min(20, count)) for overrides in shipped.around)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", help="which configurations (default: all)")
    parser.add_argument("--shipped", action="store_true", help="only the shipped settings")
    parser.add_argument("--print", action="store_true", dest="only_print", help="run nothing")
    arguments = parser.parse_args()
    names = arguments.configs or list(CONFIGS)
    if unknown := set(names) - CONFIGS.keys():
        parser.error(f"unknown configuration {', '.join(sorted(unknown))} (one of {', '.join(CONFIGS)})")
    PLACE.mkdir(parents=True, exist_ok=True)
    rows = [row for name in names for row in rows_of(name, arguments.shipped)]
    if not arguments.only_print:
        measure_missing([row for row in rows if not row.stored.exists()])
    for name in names:
        print_table(name, [row for row in rows if row.config == name and row.stored.exists()])


def measure_missing(rows: Sequence[Row]) -> None:
    with Progress() as progress:
        task = progress.add_task("", total=len(rows))
        for row in rows:
            progress.update(task, description=f"{row.config} {row.overrides or 'as shipped'}")
            row.stored.write_text(json.dumps(row.measure()), encoding="utf-8")
            progress.advance(task)


def print_table(name: str, rows: Sequence[Row]) -> None:
    """The rows of a configuration as Markdown."""
    solved = CONFIGS[name].solved
    print(f"\n### {name}: solved means >= {solved:g}\n")
    print(
        "| setting | seeds | solved | mean / median / min | greedy | in Gymnasium | greedy there | steps | wall time |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        measured = json.loads(row.stored.read_text(encoding="utf-8"))
        sampled = measured["sampled"]
        counts = [count_solved(measured.get(key), solved) for key in ("greedy", "gymnasium", "gymnasium greedy")]
        cells = [
            f"`{row.overrides}`" if row.overrides else "as shipped",
            f"{row.first_seed} - {row.first_seed + row.seeds - 1}",
            count_solved(sampled, solved),
            f"{mean(sampled):.1f} / {median(sampled):.1f} / {min(sampled):.1f}",
            *counts,
            f"{measured['steps']:,}",
            f"{measured['wall_seconds']:.0f} s",
        ]
        print(f"| {' | '.join(cells)} |")


def count_solved(sampled: Sequence[float] | None, solved: float) -> str:
    return "-" if sampled is None else f"{sum(value >= solved for value in sampled)} of {len(sampled)}"


if __name__ == "__main__":
    main()
