"""What several optimizers would do next to the same policies: noise, returns after updates, one update taken apart.

    python scripts/diagnose_optimizers.py cartpole          # about 5 minutes on two cores
    python scripts/diagnose_optimizers.py lunarlander

The policies are those of one run of adam at the rate that the published comparison selected; every optimizer acts at
its own selected rate, warmed by 50 gradients at the frozen policy (``pgkit.diagnose.same_states``).
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pgkit
from pgkit.config.schema import TrainConfig
from pgkit.diagnose.play import open_player
from pgkit.diagnose.points import open_run
from pgkit.diagnose.results import Quantity
from pgkit.diagnose.same_states import next_updates_of
from pgkit.diagnose.settings import Settings

RATES = {
    "cartpole": {"sgd": 0.316, "momentum": 0.0316, "rmsprop": 0.00316, "adam": 0.00316, "npg": 0.1},
    "lunarlander": {"sgd": 3.16, "momentum": 0.316, "rmsprop": 0.00316, "adam": 0.01, "npg": 0.1},
}
"""Selected rates of ``pgkit/compare/README.md``, actor-critic; npg was not compared: its step is limited by its KL."""

TASKS = {"cartpole": "compare-cartpole", "lunarlander": "compare-lunarlander"}
SHARES = (0.02, 0.1, 0.35)
COLUMNS = (
    ("return/mean", "return"),
    ("noise/actor/nsr", "NSR"),
    ("post_update/1/kl", "KL"),
    ("post_update/1/mean", "after 1"),
    ("post_update/1/cvar10", "worst tenth"),
    ("post_update/K/mean", "after K"),
    ("post_update/K/cvar10", "worst tenth"),
    ("post_update/K/half_share", "P_K(half)"),
    ("parts/odd", "odd"),
    ("parts/even", "even"),
    ("parts/gap", "gap"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--copies", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()
    configs = of_comparison(arguments.task, arguments.seed)
    settings = Settings(copies=arguments.copies)
    print("| share | optimizer | " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|---|---|" + "---:|" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        pgkit.train(configs["adam"], run)
        with open_run(run, SHARES) as points, open_player(configs["adam"], 0) as player:
            for (point,), share in zip(points.at(SHARES), SHARES, strict=True):
                for name, measured in next_updates_of(point, configs, player, settings).items():
                    print(f"| {share:.0%} | {name} | " + " | ".join(cells(measured)) + " |", flush=True)


def of_comparison(task: str, seed: int) -> dict[str, TrainConfig]:
    """The configuration of each optimizer at its selected rate, as the comparison trains actor-critic."""
    plan = pgkit.compare.read_plan(TASKS[task], ["tier=standard"])
    base = next(case.config for case in plan.cases if case.agent == "actor-critic")
    tables = {name: {**plan.around, "name": name, "lr": rate} for name, rate in RATES[task].items()}
    return {name: base.model_copy(update={"seed": seed, "optimizer": table}) for name, table in tables.items()}


def cells(measured: Mapping[str, Quantity]) -> list[str]:
    """Values with intervals, three digits."""
    texts = []
    for name, _ in COLUMNS:
        quantity = measured.get(name, Quantity.missing("not measured"))
        ends = "" if quantity.low != quantity.low else f" [{quantity.low:.3g}, {quantity.high:.3g}]"
        texts.append(f"{quantity.value:.3g}{ends}")
    return texts


if __name__ == "__main__":
    main()
