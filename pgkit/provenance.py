"""Where a run came from: ``provenance.json``."""

import hashlib
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pgkit.files import write_text

PACKAGES = ("pgkit-rl", "torch", "numpy", "gymnasium", "box2d", "envpool", "pydantic", "scipy")
"""What numbers may depend on."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_CBWR")


class Stopwatch(NamedTuple):
    """A run that goes on: its file, and the clocks at its start."""

    path: Path
    wall: float
    cpu: float


def write(path: Path, seeds: Sequence[int]) -> Stopwatch:
    """Write down versions, commit, hardware, threads, seeds and command line; :func:`finish` adds the times.

    Raises:
        PgkitError: the system refuses to write.
    """
    _replace(path, collect(seeds) | {"wall_seconds": None, "cpu_seconds": None})
    return Stopwatch(path, time.perf_counter(), cpu_seconds())


def finish(stopwatch: Stopwatch) -> None:
    """Add wall time, and CPU time of this process and of its children that have ended.

    Raises:
        PgkitError: the system refuses to write.
    """
    record = json.loads(stopwatch.path.read_text(encoding="utf-8"))
    record["wall_seconds"] = round(time.perf_counter() - stopwatch.wall, 3)
    record["cpu_seconds"] = round(cpu_seconds() - stopwatch.cpu, 3)
    _replace(stopwatch.path, record)


def collect(seeds: Sequence[int]) -> dict[str, Any]:
    """Everything that is known at the start, as plain data."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "git": git_state(Path(__file__).resolve().parents[1]),
        "hardware": _hardware(),
        "threads": _threads(),
        "seeds": list(seeds),
        "command_line": list(sys.argv),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the source tree at ``root``, and whether tracked files differ from it; None if it is no such tree."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "changed": bool(changes)}


def code_digest() -> str:
    """SHA-256 (16 digits) of the code that decides numbers: all of pgkit but the command line and comparisons."""
    root = Path(__file__).resolve().parent
    agents = Path(str(importlib.import_module("pgkit.agents").__file__)).parent
    files = {f"pgkit/{path.relative_to(root)}": path for path in root.rglob("*.py")}
    files |= {f"pgkit/agents/{path.name}": path for path in agents.glob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(("pgkit/compare/", "pgkit/stats/", "pgkit/cli.py")):
            digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return digest.hexdigest()[:16]


def cpu_seconds() -> float:
    """User and system time of this process, and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _git(root: Path, *words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> dict[str, Any]:
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
        "cuda": torch.version.cuda,
    }


def _cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _threads() -> dict[str, Any]:
    environment = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    return {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads(), **environment}


def _replace(path: Path, record: dict[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")
