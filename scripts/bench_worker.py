"""Programs that take turns (bench_turns.py): pgkit, Stable-Baselines3, EnvPool alone, matrix products alone.

    python scripts/bench_worker.py pgkit ENV MEMBERS[xTIMES] BATCH [KEY=VALUE ...]  # the train loop of one process
    python scripts/bench_worker.py sb3 ENV BATCH [subproc] [ppo]              # A2C, or PPO: 4 epochs of 4 minibatches
    python scripts/bench_worker.py envs ENV ENVS                              # pgkit's environments, random actions
    python scripts/bench_worker.py envpool ENV ENVS [THREADS]                 # EnvPool's, random actions
    python scripts/bench_worker.py products MEMBERS [gradient] [numpy]        # what pgkit's networks multiply, no more

BATCH is ENVSxSTEPS, or ENVS for 5 steps. All train with two MLPs 64x64 with tanh, and the settings of
Stable-Baselines3's A2C (one RMSProp for both networks, a constant rate, gradients clipped); one thread. MEMBERSxTIMES
are several populations, one after the other, as in a comparison.
"""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any

import numpy as np
import torch
from bench_turns import serve

STEPS = 5
"""Of an update, unless the batch says otherwise."""

UPDATES = 200
"""At least so many of a population, before the next one's turn."""

A2C: dict[str, Any] = {
    "name": "a2c",
    "steps": 1_000_000_000,
    "agent": {"name": "actor-critic", "gamma": 0.99, "lam": 1.0},
    "optimizer": {"name": "rmsprop", "lr": 7e-4, "eps": 1e-5, "max_grad_norm": 0.5},
    "evaluation": {"points": 0},
}


def sizes(batch: str) -> tuple[int, int]:
    """Environments and steps of an update."""
    envs, _, steps = batch.partition("x")
    return int(envs), int(steps or STEPS)


def pgkit_trains(env: str, members: str, batch: str, *overrides: str) -> None:
    from pgkit.config.load import parse_config
    from pgkit.config.members import expand_seeds
    from pgkit.config.overrides import apply_overrides
    from pgkit.training import loop
    from pgkit.training.captured import CapturedUpdates
    from pgkit.training.coordinator import Coordinator, LocalChannel
    from pgkit.training.monitor import Monitor
    from pgkit.training.population import build

    envs, steps = sizes(batch)
    table: dict[str, Any] = A2C | {"env": {"id": env}, "envs_per_member": envs, "rollout_steps": steps}
    size, _, times = members.partition("x")
    parts, phases = [], Counter[str]()
    with ExitStack() as stack:
        for part in range(int(times or 1)):
            seeds = list(range(part * int(size), (part + 1) * int(size)))
            configs = expand_seeds(parse_config(apply_overrides(table | {"seeds": seeds}, overrides)[0]))
            whole = stack.enter_context(
                Coordinator(configs, [len(configs)], None, inexact=None, progress=False, on_steps=None)
            )
            population = build(configs)
            monitor = stack.enter_context(Monitor([population], configs, LocalChannel(whole)))
            parts.append((population, monitor, CapturedUpdates(loop.compute_update)))
        captured = Captured()
        time_phases([population for population, *_ in parts], phases, captured)

        def whole_turns() -> Iterator[Any]:
            for part in cycle(parts):
                end = part[0].updates + UPDATES
                while part[0].updates < end:
                    yield part

        turns = whole_turns()

        def advance() -> int:
            population, *others = next(turns)
            before = population.updates
            loop.advance(population, *others)
            return (population.updates - before) * population.size * envs * steps

        def report() -> dict[str, Any]:
            spent = phases + captured.phases(phases.pop(CAPTURED, 0.0))
            phases.clear()
            return {"phases": dict(spent)}

        serve(advance, report)


CAPTURED = "captured updates"


class Captured:
    """What a captured update is made of: where each phase ends among its steps, and how long they take."""

    def __init__(self) -> None:
        self.capture: Any = None
        self.program: Any = None
        self.ends: list[tuple[str, int]] = []

    def end(self, phase: str) -> None:
        """A phase is over, of an update that may be being captured."""
        if self.capture is not None and self.program is None:
            self.ends.append((phase, len(self.capture.instructions)))

    def phases(self, seconds: float) -> Counter[str]:
        """Divide the time of captured updates by phase: graphs of the first phases differ by what the next takes."""
        if self.program is None:
            return Counter()
        from pgkit.compiler.graph import Graph

        taken = [0.0]
        for _, end in self.ends:
            taken.append(seconds_of(Graph(self.capture.instructions[:end], *self.program)))
        of_all = seconds_of(Graph(self.capture.instructions, *self.program))
        shares = {phase: after - before for (phase, _), after, before in zip(self.ends, taken[1:], taken, strict=False)}
        shares["the rest"] = of_all - taken[-1]
        return Counter({phase: seconds * share / of_all for phase, share in shares.items()})


def seconds_of(program: Any, seconds: float = 0.1) -> float:
    """Of one run of a program: the least of some turns of about so many seconds."""
    from pgkit.compiler.graph import MemberBuffers

    nothing = MemberBuffers([], [], [], [])

    def turn(times: int) -> float:
        start = time.perf_counter()
        program.run(1, times, nothing, nothing)
        return (time.perf_counter() - start) / times

    times = max(1, int(seconds / turn(10)))
    return min(turn(times) for _ in range(5))


def time_phases(populations: Sequence[Any], spent: Counter[str], captured: Captured) -> None:
    """Add up seconds spent in each phase of an update, from now on; the outer of two counts without the inner."""
    from pgkit.optim.base import Optimizer
    from pgkit.rollouts.collector import CompiledSteps, StepByStep
    from pgkit.training import captured_member, loop
    from pgkit.training.captured import CapturedUpdates
    from pgkit.training.monitor import Monitor

    inside = [0.0]  # seconds of inner phases, innermost last

    def timed(phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            result = function(*arguments, **named)
            seconds = time.perf_counter() - start
            spent[phase] += seconds - inside.pop()
            inside[-1] += seconds
            captured.end(phase)
            return result

        return call

    def replace(owner: Any, name: str, phase: str) -> None:
        setattr(owner, name, timed(phase, getattr(owner, name)))

    collector = populations[0].collector
    replace(type(collector), "act", "act")
    replace(type(collector.envs), "step", "environments")
    replace(StepByStep, "collect", "rollout")
    replace(CompiledSteps, "collect", "rollout")
    replace(loop, "targets", "targets")
    replace(loop, "gradient", "gradient")
    replace(Optimizer, "apply", "optimizer")
    replace(Monitor, "record_update", "logging")
    replace(CapturedUpdates, "run", CAPTURED)
    replace(CapturedUpdates, "update_from_rollouts", "learning without Python")

    class KeptCapture(captured_member.Capture):
        def __init__(self) -> None:
            super().__init__()
            captured.capture = captured.capture or self

    class KeptProgram(captured_member.Graph):
        def __init__(self, instructions: Any, *flags: Any) -> None:
            super().__init__(instructions, *flags)
            captured.program = captured.program or flags

    captured_member.Capture, captured_member.Graph = KeptCapture, KeptProgram  # type: ignore[misc]


def sb3_trains(env: str, batch: str, *how: str) -> None:
    from stable_baselines3 import A2C, PPO
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import SubprocVecEnv

    warnings.simplefilter("ignore")
    envs, steps = sizes(batch)
    vector = make_vec_env(env, envs, seed=0, vec_env_cls=SubprocVecEnv if "subproc" in how else None)
    networks = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    model: A2C | PPO
    if "ppo" in how:
        passes = {"n_epochs": 4, "batch_size": envs * steps // 4}
        model = PPO("MlpPolicy", vector, n_steps=steps, **passes, policy_kwargs=networks, device="cpu", seed=0)
    else:
        model = A2C("MlpPolicy", vector, n_steps=steps, policy_kwargs=networks, device="cpu", seed=0)
    updates = max(1, 125 // steps)

    def advance() -> int:
        before = model.num_timesteps
        model.learn(envs * steps * updates, reset_num_timesteps=False)
        return model.num_timesteps - before

    serve(advance)


def pgkit_steps(env: str, envs: str) -> None:
    from pgkit.envs import make_envs

    torch.set_num_threads(1)
    count = int(envs)
    environments = make_envs(env, count, backend="pgkit")
    environments.reset(range(count))
    space = environments.info.action_space
    space.seed(0)
    drawn = np.array([[space.sample() for _ in range(count)] for _ in range(512)])
    actions = torch.from_numpy(drawn).unbind(0)

    def advance() -> int:
        for action in actions[:50]:
            environments.step(action)
        return 50 * count

    serve(advance)


def envpool_steps(env: str, envs: str, threads: str = "0") -> None:
    import envpool

    warnings.simplefilter("ignore")
    pool = envpool.make(env, env_type="gymnasium", num_envs=int(envs), num_threads=int(threads))
    pool.reset()
    random = np.random.default_rng(0)
    actions = random.integers(pool.action_space.n, size=(512, int(envs))).astype(np.int32)

    def advance() -> int:
        for action in actions[:50]:
            pool.step(action)
        return 50 * int(envs)

    serve(advance)


def products(members: str, *how: str) -> None:
    """The matrix products of one update: acting, values for targets, and both networks backward.

    ``gradient``: the last of these only; ``numpy``: by NumPy's BLAS, not by pgkit's own loops. A gradient needs no
    forward pass: acting and values have made it. pgkit's own are those of one member after the other, as a
    program: what they work on stays in the cache, and no Python is between them.
    """
    from pgkit.compiler.graph import Capture, Graph, MemberBuffers
    from pgkit.kernels.matmul import multiply
    from pgkit.system.cpu import configure_cpu

    configure_cpu()
    size, envs = int(members), 8
    rows = envs * STEPS

    def task(high: int, inner: int, wide: int, transposed: str = "") -> tuple[Any, Any, Any]:
        """Factors and result of ``(high, inner) @ (inner, wide)``."""
        shape = (size, inner, high) if transposed == "first" else (size, high, inner)
        other = (size, wide, inner) if transposed == "second" else (size, inner, wide)
        a, b = torch.randn(shape), torch.randn(other)
        a, b = a.mT if transposed == "first" else a, b.mT if transposed == "second" else b
        return (a.numpy(), b.numpy(), torch.empty(size, high, wide).numpy()) if "numpy" in how else (a, b, None)

    work = []
    for last in (2, 1):  # actor and critic
        sizes = [(4, 64), (64, 64), (64, last)]
        work += [task(width, rows, out, "first") for width, out in sizes]
        work += [task(rows, out, width, "second") for width, out in sizes[1:] if out > 1]  # a width of 1 is no product
        outside = [envs] * STEPS if last == 2 else [rows + envs]  # acting; values for targets
        work += [task(high, *size) for high in outside for size in sizes if "gradient" not in how]

    def by_numpy() -> int:
        for a, b, out in work:
            np.matmul(a, b, out=out)
        return size * rows

    if "numpy" in how:
        serve(by_numpy)
        return
    on, off = torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)
    with Capture() as capture:
        for a, b, _ in work:
            multiply(a, b)
    program, nothing = Graph(capture.instructions, on, off, on), MemberBuffers([], [], [], [])

    def by_program() -> int:
        program.run(1, UPDATES, nothing, nothing)
        return UPDATES * size * rows

    serve(by_program)


if __name__ == "__main__":
    torch.set_num_threads(1)
    kinds = {
        "pgkit": pgkit_trains,
        "sb3": sb3_trains,
        "envs": pgkit_steps,
        "envpool": envpool_steps,
        "products": products,
    }
    if len(sys.argv) < 2 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    kinds[sys.argv[1]](*sys.argv[2:])
