"""Kill a diagnosis again and again, let the same command continue it, and compare what it writes with an untouched one.

python scripts/kill_diagnose.py runs/cartpole-actor-critic --kills 10     # below kill-test/ in the working directory

Every kill is ``kill -9`` of the command alone at a random moment: its workers have to notice by themselves. Exits with
1 if a measurement was lost, a worker lived on, or a table or a number of ``diagnosis.json`` differs.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from kill_compare import differences

PLACE = Path("kill-test")
SIZES = "--copies 16 --episodes 10 --critical 1 --at 0,5,20,50,100"
PATIENCE = 20.0
"""Seconds in which workers have to end; one that still imports does not look before it is done."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a finished run")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    started = time.monotonic()
    subprocess.run(command(arguments.run, PLACE / "untouched"), stdout=subprocess.DEVNULL, check=True)
    longest = 0.6 * (time.monotonic() - started)
    moments = random.Random(arguments.seed)
    problems, stored = [], [0]
    for _ in range(arguments.kills):
        problems += kill_after(moments.uniform(0, longest), command(arguments.run, PLACE / "killed"))
        stored.append(len(list((PLACE / "killed" / "parts").glob("*.json"))))
        if stored[-1] < stored[-2] and not (PLACE / "killed" / "diagnosis.json").exists():
            problems.append(f"{stored[-2] - stored[-1]} measurements were lost")
    subprocess.run(command(arguments.run, PLACE / "killed"), stdout=subprocess.DEVNULL, check=True)
    print(f"measurements stored after each of {arguments.kills} kills: {' '.join(map(str, stored[1:]))}")
    tables = differences(PLACE / "untouched" / "tables", PLACE / "killed" / "tables")
    problems += [f"table {name} differs" for name in tables]
    if numbers(PLACE / "untouched") != numbers(PLACE / "killed"):
        problems.append("diagnosis.json differs")
    print("\n".join(problems) or "no difference, nothing lost, no worker left")
    sys.exit(bool(problems))


def command(run: str, directory: Path) -> list[str]:
    """``pgkit diagnose`` into a directory."""
    return [
        sys.executable,
        "-m",
        "pgkit",
        "diagnose",
        run,
        "--out",
        str(directory),
        "--workers",
        "2",
        "-q",
        *SIZES.split(),
    ]


def kill_after(seconds: float, words: list[str]) -> list[str]:
    """Run a command and kill it, but not its children; says which of these have not ended soon afterwards."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(seconds)
        return []
    except subprocess.TimeoutExpired:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, PATIENCE)
    problems = [f"lived on: {' '.join(child.cmdline())}" for child in alive]
    for child in alive:
        child.kill()
    return problems


def numbers(directory: Path) -> dict[str, Any]:
    """What was measured, without how long that took."""
    content: dict[str, Any] = json.loads((directory / "diagnosis.json").read_text(encoding="utf-8"))
    content["cost"].pop("seconds")
    return content


if __name__ == "__main__":
    main()
