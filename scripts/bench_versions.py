"""How fast two versions of pgkit train, in turns A B A B ... on the same machine.

    python scripts/bench_versions.py BEFORE_PYTHON [AFTER_PYTHON]       # about 7 minutes on two quiet cores
    python scripts/bench_versions.py BEFORE_PYTHON --turns 1 --only one

Each argument is the interpreter of an environment in which a version is installed; AFTER_PYTHON is by default this one.
Both versions repeat the same training with the same seeds, each in a process of its own that waits while the other
works. Ratios are those of one turn, after over before: 0.97 is 3 % slower.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from bench_turns import Contender, Spread, ratio, take_turns

WORKER = Path(__file__).resolve().parent / "version_worker.py"

BARE = "evaluation.points=0 evaluation.final_episodes=1"
WATCHED = "evaluation.points=20 evaluation.final_episodes=1 log_interval=4_990"
LANDERS = "lunarlander-actor-critic seeds=64 envs_per_member=8 rollout_steps=32 steps=3_000 log_interval=3_000"

PIECES = {
    "one": ("one CartPole run", f"cartpole-actor-critic steps=4_000_000 log_interval=4_000_000 {BARE}"),
    "watched": ("one CartPole run, logged and evaluated", f"cartpole-actor-critic steps=1_996_000 {WATCHED}"),
    "many": ("512 CartPole runs", f"cartpole-actor-critic seeds=512 steps=15_000 log_interval=15_000 {BARE}"),
    "gymnasium": (
        "one run on Gymnasium's CartPole",
        f"cartpole-actor-critic env.backend=gymnasium steps=100_000 log_interval=100_000 {BARE}",
    ),
    "landers": ("64 LunarLander runs", f"{LANDERS} {BARE}"),
}
"""What is measured, and its configuration; "watched" logs and evaluates as often as the shipped configuration does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="Python of the version before")
    parser.add_argument("after", nargs="?", default=sys.executable, help="Python of the version after")
    parser.add_argument("--turns", type=int, default=5, help="of each version and piece")
    parser.add_argument("--only", nargs="+", choices=PIECES, default=list(PIECES), help="these pieces")
    arguments = parser.parse_args()
    print("| what | before, steps/s | after, steps/s | after / before | memory before, after |", flush=True)
    print("|---|---|---|---|---|", flush=True)
    for name in arguments.only:
        print(measure(name, [arguments.before, arguments.after], arguments.turns), flush=True)


def measure(name: str, pythons: Sequence[str], turns: int) -> str:
    """A line of the table: median and range of each version's speed and of the ratio, and the most memory."""
    what, config = PIECES[name]
    words = config.split()
    if name == "landers":
        what, words = f"{what} ({lander_backend()})", [*words, *lander_words()]
    before, after = (Contender([[python, str(WORKER), "bench", *words]]) for python in pythons)
    take_turns({"before": before, "after": after}, turns, seconds=0.0)  # one training is a turn
    speeds = f"{Spread.of(before.speeds):,.0f} | {Spread.of(after.speeds):,.0f}"
    return f"| {what} | {speeds} | {ratio(after, before):.3f} | {megabytes(before):,.0f}, {megabytes(after):,.0f} MB |"


def lander_backend() -> str:
    """EnvPool where this Python has it; both versions must."""
    return "gymnasium" if importlib.util.find_spec("envpool") is None else "envpool"


def lander_words() -> list[str]:
    """The settings of that backend: one thread, as everything else has."""
    threads = ["env.kwargs.num_threads=1"] if lander_backend() == "envpool" else []
    return [f"env.backend={lander_backend()}", *threads]


def megabytes(contender: Contender) -> float:
    """The most memory that the process ever held."""
    return max(answer["megabytes"] for answers in contender.turns for answer in answers)


if __name__ == "__main__":
    main()
