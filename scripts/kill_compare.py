"""Kill a comparison again and again, let the same command continue it, and compare the tables with an untouched run's.

python scripts/kill_compare.py small.toml --kills 20        # below kill-test/ in the working directory

Every kill is ``kill -9`` of the whole process group at a random moment. Exits with 1 if a byte differs.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PLACE = Path("kill-test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", help="name or path, and overrides", nargs="+")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--longest", type=float, default=0.0, help="seconds before a kill (default: an untouched run's)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    shutil.rmtree(PLACE, ignore_errors=True)
    started = time.monotonic()
    subprocess.run(command(arguments.comparison, PLACE / "untouched"), stdout=subprocess.DEVNULL, check=True)
    longest = arguments.longest or 0.4 * (time.monotonic() - started)
    moments = random.Random(arguments.seed)
    stored = []
    for _ in range(arguments.kills):
        kill_after(moments.uniform(0, longest), command(arguments.comparison, PLACE / "killed"))
        stored.append(len(list((PLACE / "killed" / "chunks").glob("*.parquet"))))
    subprocess.run(command(arguments.comparison, PLACE / "killed"), stdout=subprocess.DEVNULL, check=True)
    print(f"chunks stored after each of {arguments.kills} kills: {' '.join(map(str, stored))}")
    different = differences(PLACE / "untouched" / "tables", PLACE / "killed" / "tables")
    print(f"tables that differ: {', '.join(different) or 'none'}")
    sys.exit(bool(different))


def command(comparison: list[str], directory: Path) -> list[str]:
    """``pgkit compare`` into a directory."""
    words = ["compare", *comparison, "--out", str(directory), "--workers", "2", "--quiet", "--no-figures"]
    return [sys.executable, "-m", "pgkit", *words]


def kill_after(seconds: float, words: list[str]) -> None:
    """Run a command in a process group of its own, and kill that."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def differences(first: Path, second: Path) -> list[str]:
    """Names of files that are not the same, byte by byte, in two directories."""
    names = sorted({path.name for place in (first, second) for path in place.iterdir()})
    return [name for name in names if content(first / name) != content(second / name)]


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    main()
