"""Measure what callbacks cost: the CPU time of a training with each moment, over one without callbacks.

    python scripts/bench_callbacks.py                       # CartPole, actor-critic, 8 seeds of 100,000 steps
    python scripts/bench_callbacks.py --repetitions 9 steps=200_000 seeds=1

The contenders take turns within every repetition, so that changes in the machine's speed affect them alike; ratios are
within one repetition. Their callbacks do nothing, so what is measured is what pgkit does for them: sending copies, and
making those updates in Python that a callback watches.
"""

import argparse
import time
from statistics import median
from typing import Any

import pgkit


class Nothing:
    """A callback that does nothing at these moments."""

    def __init__(self, *moments: str, every: int = 1) -> None:
        self.every = every
        for moment in moments:
            setattr(self, moment, self._see)

    def _see(self, view: Any) -> None:
        pass


CONTENDERS: dict[str, list[object]] = {
    "no callbacks": [],
    "`on_start`, `on_log`, `on_end`": [Nothing("on_start", "on_log", "on_end")],
    "`on_evaluation`": [Nothing("on_evaluation")],
    "`on_update`, every = 100": [Nothing("on_update", every=100)],
    "`on_update`, every = 10": [Nothing("on_update", every=10)],
    "`on_update`": [Nothing("on_update")],
    "`on_rollout`": [Nothing("on_rollout")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--config", default="cartpole-actor-critic")
    parser.add_argument("overrides", nargs="*", default=["steps=100_000", "seeds=8"])
    arguments = parser.parse_args()
    config = pgkit.load_config(arguments.config, arguments.overrides)
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for repetition in range(arguments.repetitions + 1):  # the first one compiles
        for name, callbacks in CONTENDERS.items():
            started = time.process_time()
            pgkit.train(config, callbacks=callbacks)
            if repetition:
                seconds[name].append(time.process_time() - started)
    base = seconds["no callbacks"]
    print("| methods | CPU seconds | ratio (range) |\n|---|---|---|")
    for name, times in seconds.items():
        ratios = [one / other for one, other in zip(times, base, strict=True)]
        print(f"| {name} | {median(times):.2f} | {median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f}) |")


if __name__ == "__main__":
    main()
