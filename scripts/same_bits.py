"""Train the same small runs with two versions of pgkit, and compare what comes out: equal to the last bit, or not.

    python scripts/same_bits.py BEFORE_PYTHON [AFTER_PYTHON]    # about 4 minutes on two quiet cores
    python scripts/same_bits.py BEFORE_PYTHON --save DIR        # or: train with the version before once, ...
    python scripts/same_bits.py [AFTER_PYTHON] --against DIR    # ... and compare as often as you like
    python scripts/same_bits.py --against DIR --seed 1          # other seeds: shows that a difference is seen

Each argument is the interpreter of an environment in which a version is installed; AFTER_PYTHON is by default this one.
Compared are the final parameters and optimizer states of the last checkpoint, byte by byte; all values of
``metrics.parquet`` (NaN equals NaN) but the tags in CLOCKS; and the CSV tables of a small comparison, byte by byte.
Exits with 1 if anything differs.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from same_bits_read import CLOCKS, Verdict, judge, read_run

WORKER = Path(__file__).resolve().parent / "version_worker.py"

FEW = "evaluation.points=4 evaluation.episodes=3 evaluation.final_episodes=5"
STEPS = f"cartpole-actor-critic seeds=3 steps=40_000 {FEW}"
EPISODES = f"cartpole-reinforce seeds=3 steps=40_000 {FEW}"
GYMNASIUM = f"seeds=2 steps=6_000 env.backend=gymnasium {FEW}"
LANDER = f"seeds=2 steps=10_000 envs_per_member=8 env.backend=gymnasium {FEW}"
NORMALIZED = "env.normalize_observations=true env.normalize_rewards=true"
SHARED = "policy.shared=true policy.activation=relu agent.entropy_coef=0.01 optimizer.name=rmsprop optimizer.lr=2e-3"
ASYNC = (
    "env.vectorization=async envs_per_member=4 agent.baseline=leave_one_out agent.average=episode agent.returns=full"
)
BY_KL = "optimizer.schedule.lr=kl agent.normalize_advantage=true rollout_steps=64 evaluation.greedy=true"
PENDULUM = "env.id=Pendulum-v1 env.normalize_observations=true env.reward_scale=0.1 policy.log_std=-0.5"
PROBE = "env.id=version_worker:Probe{}-v0 policy.activation={}"

RUNS = {
    "actor-critic, CartPole (pgkit)": f"{STEPS} env.backend=pgkit",
    "reinforce, CartPole (pgkit)": f"{EPISODES} env.backend=pgkit",
    "actor-critic, CartPole (Gymnasium), shared trunk": f"cartpole-actor-critic {GYMNASIUM} {SHARED}",
    "reinforce, CartPole (Gymnasium, async), leave-one-out": f"cartpole-reinforce {GYMNASIUM} {ASYNC}",
    "actor-critic, LunarLander (Gymnasium), rate by KL": f"lunarlander-actor-critic {LANDER} {BY_KL}",
    "reinforce, LunarLander (Gymnasium)": f"lunarlander-reinforce {LANDER}",
    "actor-critic, observations and rewards normalised": f"{STEPS} {NORMALIZED}",
    "reinforce, observations and rewards normalised": f"{EPISODES} {NORMALIZED}",
    "Box actions (Pendulum)": f"cartpole-actor-critic {GYMNASIUM} {PENDULUM} policy.activation=elu",
    "MultiDiscrete actions": f"cartpole-actor-critic {GYMNASIUM} {PROBE.format('MultiDiscrete', 'silu')}",
    "MultiBinary actions": f"cartpole-reinforce {GYMNASIUM} {PROBE.format('MultiBinary', 'tanh')}",
    "in two processes": f"cartpole-actor-critic seeds=4 steps=10_000 {FEW} --workers 2",
}
"""What a run is about, and what follows ``pgkit train``."""

ADAPTIVE = ("rmsprop", "rmsprop_tf", "adagrad", "adam", "amsgrad", "adamw", "nadam", "radam", "adamax", "lion")
BY_RECIPE = [f"optimizer.name={name} optimizer.lr=1e-3" for name in ADAPTIVE]
BY_RECIPE += [f"optimizer.name={name} optimizer.lr=0.03" for name in ("sgd", "momentum", "nesterov")]
BY_RECIPE += ["optimizer.name=adadelta optimizer.lr=1.0", "optimizer.name=adam optimizer.lr=1e-2"]
NATURAL = "optimizer.name=npg optimizer.lr=0.3 optimizer.critic.name=adam optimizer.critic.lr=1e-2"
POPULATIONS = {
    "mixed optimizers": [f"{STEPS} seeds=1 steps=10_000 {settings}" for settings in BY_RECIPE],
    "natural gradient and torch.optim": [
        f"{STEPS} seeds=1 steps=6_000 {settings}"
        for settings in (NATURAL, "optimizer.name=torch.optim:Adagrad optimizer.lr=1e-2")
    ],
}
"""Populations whose members have different configurations, which the command line cannot train."""

COMPARISON = "compare-cartpole steps=4_000 learning_rates=[1e-2,1e-1] evaluation_seeds=2"
COMPARISON += ' optimizers=["sgd","adam"] --workers 1'
TABLES = "comparison"

Command = list[str]


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.save:
            record(arguments.pythons[0], arguments.save, arguments)
            return
        before = arguments.against or Path(folder) / "before"
        if not arguments.against:
            record(arguments.pythons.pop(0), before, arguments)
        python = arguments.pythons[0] if arguments.pythons else sys.executable
        record(python, Path(folder) / "after", arguments, arguments.seed)
        sys.exit(not report(before, Path(folder) / "after", arguments.only))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", help="of the version before, and of the one after")
    parser.add_argument("--save", type=absolute, metavar="DIR", help="only train, and keep the results there")
    parser.add_argument("--against", type=absolute, metavar="DIR", help="compare with the results kept there")
    parser.add_argument("--seed", type=int, default=0, help="first seed of the version after")
    parser.add_argument("--only", nargs="+", default=[], help="runs whose description contains one of these")
    parser.add_argument("--jobs", type=int, default=2, help="runs at the same time")
    arguments = parser.parse_args()
    expected = (1, 1) if arguments.save else (0, 1) if arguments.against else (1, 2)
    if not expected[0] <= len(arguments.pythons) <= expected[1] or (arguments.save and arguments.against):
        parser.error("name one or two interpreters; with --save one, with --against at most one")
    return arguments


def absolute(path: str) -> Path:
    return Path(path).absolute()


def record(python: str, directory: Path, arguments: argparse.Namespace, seed: int = 0) -> None:
    """Train everything with one version; a file beside the runs says what was trained."""
    python = os.path.abspath(python) if os.sep in python else python
    if directory.exists() and not (directory / "runs.json").exists():
        raise SystemExit(f"{directory} exists and was not written by this script")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    start = time.perf_counter()
    where = version(python, directory)
    print(f"training with {where}", file=sys.stderr)
    (directory / "runs.json").write_text(json.dumps({"pgkit": where, "runs": definitions()}, indent=2))
    chosen = {what: words for what, words in commands(python, seed).items() if wanted(what, arguments.only)}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(partial(execute, directory), chosen, chosen.values()))
    print(f"  took {time.perf_counter() - start:.0f} s", file=sys.stderr)


def wanted(what: str, only: Sequence[str]) -> bool:
    return not only or any(part in what for part in only)


def definitions() -> dict[str, str | list[str]]:
    """What is trained, by description."""
    return {**RUNS, **POPULATIONS, TABLES: COMPARISON}


def commands(python: str, seed: int) -> dict[str, Command]:
    """The command of each run, by description; each writes the directory of that name."""
    all_commands: dict[str, Command] = {}
    for what, words in RUNS.items():
        workers = [] if "--workers" in words else ["--workers", "1"]
        train = ["train", *words.split(), f"seed={seed}", *workers]
        all_commands[what] = [python, "-m", "pgkit", *train, "--out", slug(what), "--quiet"]
    for what, members in POPULATIONS.items():
        all_commands[what] = [python, str(WORKER), "train", slug(what), *(f"{words} seed={seed}" for words in members)]
    compare = [*COMPARISON.split(), f"tuning_seeds=[{seed},{seed + 1}]", "--out", slug(TABLES), "--quiet"]
    all_commands[TABLES] = [python, "-m", "pgkit", "compare", *compare]
    return all_commands


def version(python: str, directory: Path) -> str:
    """Where the pgkit is that this interpreter imports."""
    where = [python, "-c", "import pgkit; print(pgkit.__file__)"]
    return subprocess.run(where, cwd=directory, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def execute(directory: Path, what: str, command: Command) -> None:
    """Run a command below the directory, where no other pgkit can be imported; one that fails leaves nothing."""
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(WORKER.parent)}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    print(f"  {time.perf_counter() - start:5.1f} s  {what}", file=sys.stderr)
    if done.returncode:
        print(f"{' '.join(command)}\n{done.stderr}exit code {done.returncode}: {what}", file=sys.stderr)
        shutil.rmtree(directory / slug(what), ignore_errors=True)


def slug(what: str) -> str:
    """The name of a run's directory."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in what.lower()).split())


def report(before: Path, after: Path, only: Sequence[str]) -> bool:
    """Print a line for each run; whether all are equal."""
    if json.loads((before / "runs.json").read_text())["runs"] != json.loads((after / "runs.json").read_text())["runs"]:
        raise SystemExit(f"{before} was written with other settings: save it again")
    equal = True
    for what in [*RUNS, *POPULATIONS, TABLES]:
        if wanted(what, only):
            size, verdict = compare(what, before / slug(what), after / slug(what))
            print(f"{what}: {size}: {verdict.text}", flush=True)
            equal = equal and verdict.equal
    print(f"not compared, because clocks decide them: {', '.join(CLOCKS)}, and the column wall_time of metrics.parquet")
    return equal


def compare(what: str, before: Path, after: Path) -> tuple[str, Verdict]:
    """How much there is to compare in two directories, and whether it is equal."""
    missing = [when for when, directory in (("before", before), ("after", after)) if not directory.is_dir()]
    if missing:
        return "nothing to compare", Verdict(False, f"there are no results of the version {' and '.join(missing)}")
    return compare_tables(before, after) if what == TABLES else compare_runs(before, after)


def compare_runs(before: Path, after: Path) -> tuple[str, Verdict]:
    """The same of two run directories."""
    first = read_run(before)
    size = f"{first.members} members, {len(first.params)} + {len(first.opt_state)} tensors of parameters and optimizers"
    return f"{size}, {len(first.metrics):,} metric values", judge(first, read_run(after))


def compare_tables(before: Path, after: Path) -> tuple[str, Verdict]:
    """The same of the CSV tables of two comparisons."""
    first, second = ({path.name: path.read_bytes() for path in (at / "tables").glob("*.csv")} for at in (before, after))
    size = f"{len(first)} CSV tables, {sum(map(len, first.values())):,} bytes"
    different = [name for name in sorted(first | second) if first.get(name) != second.get(name)]
    if not first or different:
        return size, Verdict(False, f"different: {', '.join(different) or 'there are none'}")
    return size, Verdict(True, "equal")


if __name__ == "__main__":
    main()
