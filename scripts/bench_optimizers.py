"""Measure one optimizer step: Adam, Muon and SOAP against single instances, Adam against the memory traffic it needs.

    python scripts/bench_optimizers.py            # prints a table; exit code 1 where a target is missed

Muon's reference is torch.optim.Muon for the hidden matrices, AdamW for the rest; it computes in bfloat16, which
processors without instructions for it emulate, so a second line has the same in float32, without a target. SOAP's is
:class:`SingleSOAP`. A step of SOAP is a tenth of ten, one of which turns its bases.

Parameters are those of two MLPs 4-64-64-2 and 4-64-64-1. All contenders of a comparison take turns within every
repetition, so that changes in the machine's speed affect them alike; ratios are within one repetition, and their median
and range are shown. One thread. Peak memory is measured in a separate process for each contender, see ``memory``.
"""

import argparse
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor

from pgkit.nn.distributions import categorical
from pgkit.nn.policy import Policy
from pgkit.optim import apply_updates, make
from pgkit.optim.roles import roles_of
from pgkit.system.cpu import configure_cpu
from pgkit.types import Params

MEMBERS = 256
PEAK = 8192  # members for the peak memory, so that the process itself does not matter


class Target(NamedTuple):
    """A ratio measured in every repetition, and its upper bound."""

    name: str
    ratios: list[float]
    most: float = math.inf

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
    targets = [*time_targets(arguments.repetitions), *matrix_targets(arguments.repetitions // 6), memory_target()]
    print("| what | median | range | target |\n|---|---|---|---|")
    for name, ratios, most in targets:
        print(f"| {name} | {median(ratios):.3g} | {min(ratios):.3g} - {max(ratios):.3g} | <= {most:.3g} |")
    return int(not all(target.holds for target in targets))


def parameters(members: int) -> Params:
    """Parameters of an actor and a critic, each an MLP with two hidden layers of 64."""
    return Policy(obs_dim=4, head=categorical(2), hidden=(64, 64)).init(range(members))


def random_like(params: Params) -> Params:
    return {name: torch.randn_like(leaf) for name, leaf in params.items()}


def pgkit_step(members: int, name: str = "adam") -> Callable[[], None]:
    """Make a step of a population with one rate per member, as the training loop makes it."""
    params = parameters(members)
    optimizer = make(name, lr=torch.logspace(-5, -2, members))
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


def muon_step(members: int, in_float32: bool = False) -> Callable[[], None]:
    """Make one step of ``torch.optim.Muon``, and of AdamW for what is not a hidden matrix, for each member."""
    optimizers: list[torch.optim.Optimizer] = []
    for _ in range(members):
        params = parameters(1)
        leaves = {name: torch.nn.Parameter(leaf[0]) for name, leaf in params.items()}
        for leaf in leaves.values():
            leaf.grad = torch.randn_like(leaf)
        hidden = [name for name, role in roles_of(params).items() if role == "hidden"]
        optimizers.append(torch.optim.Muon([leaves[name] for name in hidden]))
        optimizers.append(torch.optim.AdamW([leaf for name, leaf in leaves.items() if name not in hidden]))

    def step() -> None:
        with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone) if in_float32 else nullcontext():
            for optimizer in optimizers:
                optimizer.step()

    return step


class SingleSOAP:
    """SOAP for the tensors of one network, as plainly as torch can say it: :func:`pgkit.optim.recent.soap`."""

    def __init__(self, params: list[Tensor], lr: float, beta: float = 0.95, eps: float = 1e-8, every: int = 10) -> None:
        self.params = params
        self.grads = [torch.randn_like(param) for param in params]
        self.settings = lr, beta, eps, every
        self.state = [(torch.zeros_like(param), torch.zeros_like(param)) for param in params]
        self.averages = [
            [] if len(grad) == 1 else [(1 - beta) * (grad @ grad.T), (1 - beta) * (grad.T @ grad)]
            for grad in self.grads
        ]
        self.bases = [[torch.linalg.eigh(a).eigenvectors.flip(1) for a in averages] for averages in self.averages]
        self.steps = 0

    def step(self) -> None:
        lr, beta, eps, every = self.settings
        self.steps += 1
        rate = lr / (1 - beta**self.steps) ** 0.5
        for param, grad, (m, v), averages, bases in zip(
            self.params, self.grads, self.state, self.averages, self.bases, strict=True
        ):
            left, right = bases or (None, None)
            rotated = left.T @ grad @ right if bases else grad
            m.lerp_(grad, 1 - beta)
            v.mul_(beta).addcmul_(rotated, rotated, value=1 - beta)
            direction = (left.T @ m @ right if bases else m) / v.sqrt().add_(eps)
            param.sub_(left @ direction @ right.T if bases else direction, alpha=rate).mul_(1 - 0.01 * lr)
            for side, average in enumerate(averages):
                average.lerp_(grad @ grad.T if side == 0 else grad.T @ grad, 1 - beta)
                if self.steps % every == 0:
                    product = average @ bases[side]
                    order = (bases[side] * product).sum(0).argsort(descending=True)
                    v.copy_(v.index_select(side, order))
                    bases[side] = torch.linalg.qr(product[:, order]).Q


def soap_step(members: int) -> Callable[[], None]:
    """Make one step of :class:`SingleSOAP` for each member."""
    instances = [SingleSOAP([leaf[0] for leaf in parameters(1).values()], lr=1e-5 * (1 + k)) for k in range(members)]

    def step() -> None:
        for instance in instances:
            instance.step()

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


def matrix_targets(repetitions: int) -> list[Target]:
    """Compare times of optimizers for matrices."""
    muon_steps = {"pgkit": pgkit_step(MEMBERS, "muon"), "torch": muon_step(MEMBERS), "f32": muon_step(MEMBERS, True)}
    muon = interleaved(muon_steps, repetitions, inner=1)
    soap = interleaved({"pgkit": pgkit_step(MEMBERS, "soap"), "torch": soap_step(MEMBERS)}, repetitions, inner=10)
    return [
        Target(f"P = {MEMBERS}: muon / {MEMBERS} instances of torch.optim.Muon", ratio(muon, "pgkit", "torch"), 0.1),
        Target(f"P = {MEMBERS}: muon / {MEMBERS} instances in float32", ratio(muon, "pgkit", "f32")),
        Target(f"P = {MEMBERS}: soap / {MEMBERS} single instances", ratio(soap, "pgkit", "torch"), 0.1),
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
