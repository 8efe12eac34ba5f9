"""Measure one optimizer step: pgkit's Adam against torch.optim.Adam, and against the memory traffic it cannot avoid.

    python scripts/bench_optimizers.py            # prints a table; exit code 1 where a target is missed

Parameters are those of two MLPs 4-64-64-2 and 4-64-64-1. All contenders of a comparison take turns within every
repetition, so that changes in the machine's speed affect them alike; ratios are within one repetition, and their median
and range are shown. One thread. Peak memory is measured in a separate process for each contender, see ``memory``.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.nn.distributions import categorical
from pgkit.nn.policy import Policy
from pgkit.optim import apply_updates, make
from pgkit.system.cpu import configure_cpu
from pgkit.types import Params

MEMBERS = 256
PEAK = 8192  # members for the peak memory, so that the process itself does not matter


class Target(NamedTuple):
    """A ratio measured in every repetition, and its upper bound."""

    name: str
    ratios: list[float]
    most: float

    @property
    def holds(self) -> bool:
        """Whether the median is within the bound."""
        return median(self.ratios) <= self.most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--memory", choices=CONTENTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_cpu()
    if arguments.memory:
        print(memory(arguments.memory))
        return 0
    targets = [*time_targets(arguments.repetitions), memory_target()]
    print("| what | median | range | target |\n|---|---|---|---|")
    for name, ratios, most in targets:
        print(f"| {name} | {median(ratios):.3g} | {min(ratios):.3g} - {max(ratios):.3g} | <= {most:.3g} |")
    return int(not all(target.holds for target in targets))


def parameters(members: int) -> Params:
    """Parameters of an actor and a critic, each an MLP with two hidden layers of 64."""
    return Policy(obs_dim=4, head=categorical(2), hidden=(64, 64)).init(range(members))


def random_like(params: Params) -> Params:
    return {name: torch.randn_like(leaf) for name, leaf in params.items()}


def pgkit_step(members: int) -> Callable[[], None]:
    """Make a step of a population with one rate per member, as the training loop makes it."""
    params = parameters(members)
    optimizer = make("adam", lr=torch.logspace(-5, -2, members))
    grads = random_like(params)
    state = optimizer.init(params)
    buffers = {name: leaf.clone() for name, leaf in grads.items()}

    def step() -> None:
        nonlocal params, state, buffers
        updates, state = optimizer.update(buffers, state, params, donate=True)
        buffers = params  # the old parameters' memory takes the next gradients
        params = apply_updates(params, updates, donate=True)

    return step


def torch_step(members: int) -> Callable[[], None]:
    """Make one step of ``torch.optim.Adam`` for each member."""
    optimizers = []
    for k in range(members):
        leaves = [torch.nn.Parameter(leaf[0]) for leaf in parameters(1).values()]
        for leaf in leaves:
            leaf.grad = torch.randn_like(leaf)
        optimizers.append(torch.optim.Adam(leaves, lr=1e-5 * (1 + k), foreach=True))

    def step() -> None:
        for optimizer in optimizers:
            optimizer.step()

    return step


def traffic(members: int) -> Callable[[], None]:
    """Read gradient, parameter and both moments, write parameter and both moments, in as few operations as possible."""
    trees = [random_like(parameters(members)) for _ in range(4)]
    flat: list[tuple[Tensor, ...]] = [tuple(tree[name] for tree in trees) for name in trees[0]]

    def step() -> None:
        for grad, param, m, v in flat:
            torch.add(grad, m, out=m)  # 2 read, 1 written
            torch.add(v, 1.0, out=v)  # 1 read, 1 written
            param.mul_(1.0)  # 1 read, 1 written

    return step


def time_targets(repetitions: int) -> list[Target]:
    """Compare times."""
    one = interleaved({"pgkit": pgkit_step(1), "torch": torch_step(1)}, repetitions, inner=100)
    many_steps = {"pgkit": pgkit_step(MEMBERS), "torch": torch_step(MEMBERS), "traffic": traffic(MEMBERS)}
    many = interleaved(many_steps, repetitions, inner=3)
    return [
        Target("P = 1: pgkit / torch.optim.Adam(foreach=True)", ratio(one, "pgkit", "torch"), 1.5),
        Target(f"P = {MEMBERS}: pgkit / {MEMBERS} torch instances", ratio(many, "pgkit", "torch"), 1 / 15),
        Target(f"P = {MEMBERS}: pgkit / memory traffic", ratio(many, "pgkit", "traffic"), 2.5),
    ]


def interleaved(steps: dict[str, Callable[[], None]], repetitions: int, inner: int) -> dict[str, list[float]]:
    """Measure the seconds of a step in each repetition, by contender; the first repetitions warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repetition in range(repetitions + 3):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(inner):
                step()
            if repetition >= 3:
                seconds[name].append((time.perf_counter() - start) / inner)
    return seconds


def ratio(seconds: dict[str, list[float]], first: str, second: str) -> list[float]:
    return [a / b for a, b in zip(seconds[first], seconds[second], strict=True)]


def nothing() -> None:
    """Hold nothing but what the process needs."""
    parameters(1)


def contents() -> None:
    """Hold parameters, gradients and both moments, all written to."""
    held = [{name: torch.ones(PEAK, *leaf.shape[1:]) for name, leaf in parameters(1).items()} for _ in range(4)]
    assert len(held) == 4


def steps() -> None:
    """Make three steps on parameters and gradients like those."""
    params, grads = (
        {name: torch.ones(PEAK, *leaf.shape[1:]) for name, leaf in parameters(1).items()} for _ in range(2)
    )
    optimizer = make("adam")
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params, donate=True)
        grads = params
        params = apply_updates(params, updates, donate=True)


CONTENTS = {"nothing": nothing, "contents": contents, "steps": steps}


def memory(name: str) -> int:
    """Return the peak resident bytes of this process after calling the function of that name."""
    CONTENTS[name]()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_target() -> Target:
    """Compare the peak of three steps with that of what they need, both without the process itself."""
    bytes_of = {
        name: int(subprocess.run([sys.executable, __file__, "--memory", name], capture_output=True, check=True).stdout)
        for name in CONTENTS
    }
    needed, peak = (bytes_of[name] - bytes_of["nothing"] for name in ("contents", "steps"))
    return Target(f"peak memory / parameters, gradients, moments (P = {PEAK})", [peak / needed], 1.2)


if __name__ == "__main__":
    sys.exit(main())
