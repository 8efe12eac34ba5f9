"""How fast pgkit trains, side by side with its peers on the same cores, and how far that is from what the cores can do.

    python scripts/bench_throughput.py                              # everything: about 15 minutes
    python scripts/bench_throughput.py one population --json out.json

Needs the extra "bench" (Stable-Baselines3, EnvPool); for rejax it makes a virtual environment below --jax. All programs
of a comparison take turns, five times each; ratios are those of one turn; medians and ranges are shown. "Both cores"
means two processes of one thread each; rejax may choose between that and one process with all threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench_turns import Contender, Spread, ratio, take_turns

HERE = Path(__file__).parent
REJAX = ("rejax==0.1.3", "gymnax==0.0.9")
CARTPOLE, LUNARLANDER = "CartPole-v1", "LunarLander-v3"


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: was compared.
        measured: as text.
        number: what the target is about.
        target: what it should be at least, or at most; None where nothing is asked for.
        at_most: whether small is good.
    """

    what: str
    measured: str
    number: float
    target: float | None = None
    at_most: bool = False

    def __str__(self) -> str:
        if self.target is None:
            return f"| {self.what} | {self.measured} | - | - |"
        met = self.number <= self.target if self.at_most else self.number >= self.target
        goal = f"{'<=' if self.at_most else '>='} {self.target:g}"
        return f"| {self.what} | {self.measured} | {goal} | {'yes' if met else 'no'} |"


class Bench(NamedTuple):
    """How long to measure, and where rejax is."""

    repetitions: int
    seconds: float
    jax: Path

    def compare(self, **commands: Sequence[Sequence[str]]) -> dict[str, Contender]:
        """The contenders of these commands, each a list of processes, after their turns."""
        contenders = {name: Contender(processes) for name, processes in commands.items()}
        take_turns(contenders, self.repetitions, self.seconds)
        for name, contender in contenders.items():
            print(f"  {name}: {Spread.of(contender.speeds):,.0f} steps/s", file=sys.stderr)
        return contenders


def worker(*arguments: object) -> list[str]:
    return [sys.executable, str(HERE / "bench_worker.py"), *map(str, arguments)]


def rejax(bench: Bench, agents: int, core: int | None = None, ppo: bool = False) -> list[str]:
    """The command; on one core only if one is given."""
    python = bench.jax / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", bench.jax], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *REJAX], check=True)
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    return [*pinned, str(python), str(HERE / "bench_rejax.py"), str(agents), *["ppo"] * ppo]


def one(bench: Bench) -> list[Row]:
    """One run of each environment, one process each."""
    cart = bench.compare(
        pgkit=[worker("pgkit", CARTPOLE, 1, 8)], sb3=[worker("sb3", CARTPOLE, 8)], rejax=[rejax(bench, 1)]
    )
    lander = bench.compare(
        pgkit=[worker("pgkit", LUNARLANDER, 1, 16)],
        gymnasium=[worker("pgkit", LUNARLANDER, 1, 16, "env.backend=gymnasium")],
        sb3=[worker("sb3", LUNARLANDER, 16)],
        sb3_subproc=[worker("sb3", LUNARLANDER, 16, "subproc")],
    )
    best = max(lander["sb3"], lander["sb3_subproc"], key=lambda peer: median(peer.speeds))
    return [
        times("one CartPole run, over SB3 A2C", cart["pgkit"], cart["sb3"], 5),
        times("one LunarLander run, over SB3 A2C", lander["pgkit"], best, 50),
        times("one LunarLander run on Gymnasium's environments, over SB3 A2C", lander["gymnasium"], best, 2),
    ]


def population(bench: Bench) -> list[Row]:
    """512 CartPole runs on both cores; phases and roofline."""
    rivals = bench.compare(
        pgkit=[worker("pgkit", CARTPOLE, "64x4", 8)] * 2,
        sb3=[worker("sb3", CARTPOLE, 8)] * 2,
        rejax_threads=[rejax(bench, 512)],
        rejax_processes=[rejax(bench, 256, core) for core in (0, 1)],
        products=[worker("products", 1)] * 2,
        products_of_numpy=[worker("products", 64, "numpy")] * 2,
        products_of_gradient=[worker("products", 1, "gradient")] * 2,
        alone=[worker("pgkit", CARTPOLE, 1, 8)],
        together=[worker("pgkit", CARTPOLE, 512, 8)],
    )
    best = max(rivals["rejax_threads"], rivals["rejax_processes"], key=lambda peer: median(peer.speeds))
    print_phases("512 runs in two processes", rivals["pgkit"], "matrix products alone", rivals["products"])
    print_phases("one run alone", rivals["alone"], "matrix products alone", rivals["products"])
    megabytes = max(answer["megabytes"] for answers in rivals["together"].turns for answer in answers)
    turns = zip(rivals["products_of_gradient"].turns, rivals["pgkit"].turns, strict=True)
    gradient = Spread.of([cost(products) / cost(training, "gradient") for products, training in turns])
    more = Spread.of([a / b for a, b in zip(rivals["alone"].speeds, rivals["together"].speeds, strict=True)])
    return [
        times("512 CartPole runs, over SB3 A2C on both cores", rivals["pgkit"], rivals["sb3"], 100),
        times("512 CartPole runs, over rejax on both cores", rivals["pgkit"], best, 3),
        times("512 CartPole runs, over all their matrix products alone", rivals["pgkit"], rivals["products"]),
        times("these products, over NumPy's", rivals["products"], rivals["products_of_numpy"]),
        Row("the gradient phase, over its products", f"{gradient:.2f}x", gradient.median, 0.5),
        Row("one more member at 512, of a run alone", f"{more:.2f}", more.median, 1 / 50, at_most=True),
        Row("memory of 512 members in one process", f"{megabytes:,.0f} MB", megabytes, 1000, at_most=True),
    ]


def ppo(bench: Bench) -> list[Row]:
    """PPO on CartPole, 8 environments x 128 steps, 4 epochs of 4 minibatches: one run, and 512 on both cores."""
    settings = ["agent.name=ppo", "epochs=4", "minibatches=4", "optimizer.name=adam", "optimizer.lr=3e-4"]
    single = bench.compare(
        pgkit=[worker("pgkit", CARTPOLE, 1, "8x128", *settings)], sb3=[worker("sb3", CARTPOLE, "8x128", "ppo")]
    )
    many = bench.compare(
        pgkit=[worker("pgkit", CARTPOLE, "64x4", "8x128", *settings)] * 2,
        rejax_threads=[rejax(bench, 512, ppo=True)],
        rejax_processes=[rejax(bench, 256, core, ppo=True) for core in (0, 1)],
    )
    best = max(many["rejax_threads"], many["rejax_processes"], key=lambda peer: median(peer.speeds))
    return [
        times("one CartPole PPO run, over SB3 PPO", single["pgkit"], single["sb3"], 40),
        times("512 CartPole PPO runs, over rejax on both cores", many["pgkit"], best, 3),
    ]


def landers(bench: Bench) -> list[Row]:
    """LunarLander alone on one core, and 64 runs of 16 environments x 32 steps on both cores."""
    alone = bench.compare(
        pgkit_8=[worker("envs", LUNARLANDER, 8)],
        pgkit_64=[worker("envs", LUNARLANDER, 64)],
        pgkit_512=[worker("envs", LUNARLANDER, 512)],
        envpool=[worker("envpool", LUNARLANDER, 64, 1)],
    )
    envpool = ["env.backend=envpool", "env.kwargs.num_threads=1"]
    rivals = bench.compare(
        pgkit=[worker("pgkit", LUNARLANDER, 32, "16x32")] * 2,
        pgkit_on_envpool=[worker("pgkit", LUNARLANDER, 32, "16x32", *envpool)] * 2,
        sb3=[worker("sb3", LUNARLANDER, "16x32")] * 2,
        environments=[worker("envs", LUNARLANDER, 512)] * 2,
    )
    print_phases("64 LunarLander runs in two processes", rivals["pgkit"], "environments alone", rivals["environments"])
    return [
        *(
            times(
                f"{count} LunarLanders, random actions, over EnvPool on one core",
                alone[f"pgkit_{count}"],
                alone["envpool"],
                9,
            )
            for count in (8, 64, 512)
        ),
        times("64 LunarLander runs, over the same on EnvPool", rivals["pgkit"], rivals["pgkit_on_envpool"], 8),
        times("64 LunarLander runs, over SB3 A2C on both cores", rivals["pgkit"], rivals["sb3"], 150),
    ]


def classic(bench: Bench) -> list[Row]:
    """64 runs of each environment of classic control on one core."""
    names = ("Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1")
    speeds = bench.compare(**{name: [worker("pgkit", name, 64, "16x32")] for name in names})
    return [
        Row(f"64 {name} runs, training steps per second and core", f"{spread:,.0f}", spread.median, 500_000)
        for name, spread in ((name, Spread.of(contender.speeds)) for name, contender in speeds.items())
    ]


def watching(bench: Bench) -> list[Row]:
    """What logging, evaluation and checkpoints add to a training as shipped."""
    bare = ["evaluation.points=0", "evaluation.final_episodes=1", "checkpoint_points=0", "log_interval=499_000"]
    slowdown = trainings(bench, ["seeds=16"], ["seeds=16", *bare])
    share = Spread(*(number - 1 for number in slowdown))
    return [Row("logging, evaluation and checkpoints, of wall time", f"{share:.1%}", share.median, 0.05, at_most=True)]


def cores(bench: Bench) -> list[Row]:
    """What a second process gains."""
    rows = []
    for seeds in ("seeds=16", "seeds=32"):
        gain = trainings(bench, [seeds, "--workers", "1"], [seeds, "--workers", "2"])
        rows.append(Row(f"CartPole as shipped, {seeds}, two processes over one", f"{gain:.2f}x", gain.median))
    return rows


def trainings(bench: Bench, first: Sequence[str], second: Sequence[str]) -> Spread:
    """How many times as long the first training takes; ``first`` and ``second`` are the words in which they differ."""
    command = [sys.executable, "-m", "pgkit", "train", "cartpole-actor-critic", "-q"]
    ratios = []
    for _ in range(bench.repetitions):
        with tempfile.TemporaryDirectory() as folder:
            pair = enumerate((first, second))
            taken = [seconds_of([*command, *words, "--out", f"{folder}/{k}"]) for k, words in pair]
        ratios.append(taken[0] / taken[1])
    return Spread.of(ratios)


def start(bench: Bench) -> list[Row]:
    """How long one waits for the first word."""
    python = [sys.executable, "-c"]
    asked: dict[str, list[str]] = {
        "help": [sys.executable, "-m", "pgkit", "--help"],
        "pgkit": [*python, "import pgkit; pgkit.train"],
        "torch": [*python, "import torch"],
    }
    taken: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(bench.repetitions):
        for name, command in asked.items():
            taken[name].append(seconds_of(command))
    of_torch = Spread.of([a / b for a, b in zip(taken["pgkit"], taken["torch"], strict=True)])
    waiting = Spread.of(taken["help"])
    return [
        Row("pgkit --help, seconds", f"{waiting:.2f}", waiting.median, 0.3, at_most=True),
        Row("import pgkit and pgkit.train, over import torch", f"{of_torch:.2f}", of_torch.median, 1.5, at_most=True),
    ]


def seconds_of(command: Sequence[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def cost(turn: Sequence[dict[str, Any]], phase: str | None = None) -> float:
    """Seconds of a core for a step, of one phase of it if asked for."""
    seconds = sum(answer["phases"][phase] if phase else answer["seconds"] for answer in turn)
    return seconds / sum(answer["steps"] for answer in turn)


def times(what: str, first: Contender, second: Contender, target: float | None = None) -> Row:
    spread = ratio(first, second)
    return Row(what, f"{spread:.2f}x", spread.median, target)


def print_phases(what: str, contender: Contender, limit: str, least: Contender, cores: int = 1) -> None:
    """Time of a step by phase, beside that of something that cannot be spared, on so many cores per process."""
    answers = [answer for turn in contender.turns for answer in turn]
    whole, limits = cost(answers), [cost(turn) * cores for turn in least.turns]
    print(f"\n{what}: {whole * 1e9:,.0f} ns a step and core; {limit} {median(limits) * 1e9:,.0f} ns\n")
    print("| phase | ns a step | share |\n|---|---|---|")
    costs = {phase: cost(answers, phase) for phase in answers[0]["phases"]}
    for phase, seconds in sorted(costs.items(), key=lambda pair: -pair[1]):
        print(f"| {phase} | {seconds * 1e9:,.0f} | {seconds / whole:.0%} |")


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    part.__name__: part for part in (one, population, ppo, landers, classic, watching, cores, start)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all unless named")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a turn")
    parser.add_argument("--jax", type=Path, default=Path(tempfile.gettempdir()) / "pgkit-bench-jax")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    bench = Bench(arguments.repetitions, arguments.seconds, arguments.jax)
    rows: list[Row] = []
    for name in arguments.parts or PARTS:
        print(f"{name} ...", file=sys.stderr)
        rows += PARTS[name](bench)
        if arguments.json:  # after each part, because the next one may fail
            content: list[dict[str, Any]] = [row._asdict() for row in rows]
            arguments.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print("\n| what | median (range) | target | met |\n|---|---|---|---|")
    print("\n".join(map(str, rows)))


if __name__ == "__main__":
    main()
