"""Kill trainings at random moments, resume them, and compare what they leave with untouched runs, byte by byte.

python scripts/kill_train.py --kills 50                          # all cases, in kill-test/ in the working directory
python scripts/kill_train.py cartpole-reinforce-adam --kills 3   # some of them

Each kill is ``kill -9`` of the whole process group, most of them after training has begun. A checkpoint follows each
update, so that some kills fall into the writing of one. The script compares the last checkpoint (parameters, optimizer
states and everything else), the best members, metrics, TensorBoard curves and the result, without what clocks say. It
exits with 1 if anything differs.
"""

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pgkit.logging import read_metrics
from pgkit.runs import checkpoint

PLACE = Path("kill-test")
CLOCKS = ("times", "seconds", "wall_seconds")

ENVS = {
    "cartpole": "env.backend=pgkit steps={steps} env.normalize_observations=true",
    "lander": "env.backend=pgkit steps={steps}",
    "lander-gymnasium": "env.backend=gymnasium steps={steps} env.normalize_rewards=true",
    "lander-async": "env.backend=gymnasium env.vectorization=async steps={steps}",
}
OPTIMIZERS = {
    "adam": "optimizer.name=adam optimizer.lr=3e-3 optimizer.schedule.lr=kl",
    "rmsprop": "optimizer.name=rmsprop optimizer.lr=1e-3 optimizer.schedule.lr=linear",
    "momentum": "optimizer.name=momentum optimizer.lr=1e-2 optimizer.max_grad_norm=0.5",
}
AGENTS = ("actor-critic", "reinforce")
CASES = [f"{env}-{agent}-{name}" for env in ENVS for agent in AGENTS for name in OPTIMIZERS]
SHARED = "seeds=8 envs_per_member=4 policy.hidden=[32] evaluation.points=5 evaluation.episodes=2"
SHARED += " evaluation.final_episodes=5 checkpoint_points=10000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="such as lander-async-reinforce-adam; by default all")
    parser.add_argument("--kills", type=int, default=50, help="number of kills, of all cases together")
    parser.add_argument("--steps", type=int, default=12_000, help="environment steps of each of the 8 members")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of each training")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    arguments = parser.parse_args()
    cases = arguments.cases or CASES
    shutil.rmtree(PLACE, ignore_errors=True)
    moments = random.Random(arguments.seed)
    differing = []
    total_kills = 0
    half_written = 0
    for index, case in enumerate(cases):
        kills = arguments.kills * (index + 1) // len(cases) - arguments.kills * index // len(cases)
        untouched = PLACE / case / "untouched"
        killed = PLACE / case / "killed"
        started = time.monotonic()
        subprocess.run(command(case, arguments, untouched), stdout=subprocess.DEVNULL, check=True)
        longest = (time.monotonic() - started) / (kills + 1)
        case_kills = 0
        for _ in range(kills):
            temporary = set(killed.rglob(".*.tmp"))
            case_kills += kill_after(moments, longest, command(case, arguments, killed), killed)
            half_written += bool(set(killed.rglob(".*.tmp")) - temporary)
        total_kills += case_kills
        subprocess.run(command(case, arguments, killed), stdout=subprocess.DEVNULL, check=True)
        names = [name for name, first, second in contents(untouched, killed) if first != second]
        differing += [f"{case}: {name}" for name in names]
        resumed = len(json.loads((killed / "provenance.json").read_text()).get("resumed", []))
        print(
            f"{case}: {case_kills} kills, {resumed} resumptions recorded, differs: {', '.join(names) or 'nothing'}",
            flush=True,
        )
    print(f"{total_kills} kills, {half_written} of them in the middle of a write; {len(differing)} differences")
    sys.exit(bool(differing))


def command(case: str, arguments: argparse.Namespace, directory: Path) -> list[str]:
    """``pgkit resume`` if there is a checkpoint, else ``pgkit train``."""
    python = [sys.executable, "-m", "pgkit"]
    if any((directory / "checkpoints").glob("step-*.pt")):
        return [*python, "resume", str(directory), "--quiet"]
    env, agent, optimizer = next((e, a, o) for e in ENVS for a in AGENTS for o in OPTIMIZERS if case == f"{e}-{a}-{o}")
    name = f"{'cartpole' if env == 'cartpole' else 'lunarlander'}-{agent}"
    words = f"{ENVS[env].format(steps=arguments.steps)} {OPTIMIZERS[optimizer]} {SHARED}".split()
    words += ["rollout_steps=16"] if agent == "actor-critic" else []
    words += ["--workers", str(arguments.workers)]
    overwrite = ["--overwrite"] if (directory / "config.toml").exists() else []
    return [*python, "train", name, *words, "--out", str(directory), "--quiet", *overwrite]


def kill_after(moments: random.Random, longest: float, words: list[str], directory: Path) -> bool:
    """Run a command in a new process group and kill it: one in five at any moment, the others during training."""
    latest = directory / "checkpoints" / "latest"
    before = stamp(latest)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    if moments.random() > 0.2:
        while stamp(latest) == before and process.poll() is None:
            time.sleep(0.001)
    try:
        process.wait(moments.uniform(0, longest))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False  # it ended before


def stamp(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None


def contents(first: Path, second: Path) -> Iterator[tuple[str, Any, Any]]:
    """What is compared: a name, and the content of each of two run directories."""
    for name, read in {"checkpoint": last, "best": best, "metrics": metrics, "result": result}.items():
        yield name, read(first), read(second)
    places = sorted({path.parent.relative_to(root) for root in (first, second) for path in root.rglob("events.*")})
    for place in places:
        if place == Path("summary") and workers_of(first) > 1:
            continue
        yield f"TensorBoard {place}", curves(first / place), curves(second / place)


def workers_of(run: Path) -> int:
    """How many workers trained; with several, the order of rows and the summary depend on which of them was faster."""
    return len(checkpoint.load_latest(run / "checkpoints")["workers"])


def last(run: Path) -> dict[str, str]:
    return digests(checkpoint.load_latest(run / "checkpoints"))


def best(run: Path) -> dict[str, str]:
    return digests(checkpoint.load(run / "checkpoints" / "best.pt"))


def metrics(run: Path) -> str:
    rows = read_metrics(run / "metrics.parquet")
    if workers_of(run) > 1:
        # A final evaluation may have the step of the one before: the order of rows tells them apart.
        rows = rows.assign(order=range(len(rows))).sort_values(["member", "tag", "step", "order"], ignore_index=True)
        rows = rows.drop(columns="order")
    return rows[rows["tag"] != "time/env_steps_per_second"].drop(columns="wall_time").to_csv()


def result(run: Path) -> dict[str, Any]:
    table = json.loads((run / "result.json").read_text())
    return {name: value for name, value in table.items() if name not in CLOCKS}


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.disable()  # TensorBoard warns of curves with a description and without a plugin
    read = EventAccumulator(str(run), size_guidance={"scalars": 0})
    read.Reload()
    tags = [tag for tag in read.Tags()["scalars"] if "per_second" not in tag]
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in tags}


def digests(tree: Any, place: str = "") -> dict[str, str]:
    """A digest of each leaf of a tree, by its place in it."""
    if isinstance(tree, torch.Tensor):
        content = str((tree.dtype, tuple(tree.shape))).encode() + tree.contiguous().numpy().tobytes()
        return {place: hashlib.sha256(content).hexdigest()}
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        parts = [digests(value, f"{place}/{key}") for key, value in pairs if key not in CLOCKS]
        return {key: value for part in parts for key, value in part.items()}
    return {place: repr(tree)}


if __name__ == "__main__":
    main()
