"""Where a run comes from: ``provenance.json``."""

import hashlib
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pgkit.system.cpu import available_cpus, compile_mode
from pgkit.system.files import read_json, write_text

PACKAGES = ("pgkit-rl", "torch", "numpy", "llvmlite", "gymnasium", "box2d", "envpool", "pydantic", "scipy")
"""Packages whose versions numbers may depend on."""

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_CBWR")


class Stopwatch(NamedTuple):
    """Measures a run.

    Attributes:
        path: of its ``provenance.json``.
        wall: ``time.perf_counter()`` at its start.
        cpu: :func:`cpu_seconds` at its start.
    """

    path: Path
    wall: float
    cpu: float

    @property
    def times(self) -> dict[str, float]:
        """Wall time so far, and CPU time of this process and of its children that have ended, in seconds."""
        return {"wall_seconds": time.perf_counter() - self.wall, "cpu_seconds": cpu_seconds() - self.cpu}


def write(path: Path, seeds: Sequence[int], **more: Any) -> Stopwatch:
    """Write versions, commit, hardware, threads, seeds and command line; :func:`finish` adds the times.

    Args:
        path: of the file.
        seeds: of the members.
        more: further entries.

    Raises:
        WriteError: the system refuses to write.
    """
    _replace(path, collect(seeds) | more | {"wall_seconds": None, "cpu_seconds": None})
    return Stopwatch(path, time.perf_counter(), cpu_seconds())


def append_resumed(path: Path, entry: Mapping[str, Any], times: Mapping[str, float]) -> Stopwatch:
    """Add an entry to the list ``resumed``; the stopwatch continues from the times of the run so far.

    Args:
        path: of the file.
        entry: its content; time and command line are added.
        times: of the checkpoint. If the process that was stopped could still write its own times, these count: they
            are larger.

    Raises:
        PgkitError: the file cannot be read or written.
    """
    record = read_json(path)
    now = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "command_line": list(sys.argv)}
    _replace(path, record | {"resumed": [*record.get("resumed", []), now | dict(entry)]})
    wall, cpu = (max(times[name], record.get(name) or 0.0) for name in ("wall_seconds", "cpu_seconds"))
    return Stopwatch(path, time.perf_counter() - wall, cpu_seconds() - cpu)


def finish(stopwatch: Stopwatch) -> None:
    """Add the times.

    Raises:
        PgkitError: the file cannot be read or written.
    """
    times = {name: round(seconds, 3) for name, seconds in stopwatch.times.items()}
    _replace(stopwatch.path, read_json(stopwatch.path) | times)


def origin() -> dict[str, Any]:
    """Everything but its configuration that the numbers of a run on CPU depend on, without nesting."""
    machine = hardware()
    versions = {f"version of {name}": _version(name) for name in PACKAGES if name != "pgkit-rl"}
    python = {"version of python": platform.python_version()}
    parts = {"processor": machine["cpu"], "GPUs": ", ".join(machine["gpus"]) or None}
    kernels = "not compiled" if compile_mode() == "off" else "compiled"  # they round differently
    return {"code of pgkit": code_digest(), "kernels": kernels, **python, **versions, **parts}


NO_NUMBERS = tuple(f"pgkit/{name}/" for name in ("cli", "compare", "deploy", "plots", "pretrained", "stats", "tune"))
"""Packages that no number of a run depends on."""


def collect(seeds: Sequence[int]) -> dict[str, Any]:
    """Everything that is known when a run starts, as plain data."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "code_digest": code_digest(),
        "git": git_state(Path(__file__).resolve().parents[2]),
        "hardware": hardware(),
        "threads": _threads(),
        "seeds": list(seeds),
        "command_line": list(sys.argv),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """Commit of the source tree at ``root``, and whether tracked files have changed; None outside git."""
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None or changes is None else {"commit": commit, "changed": bool(changes)}


def code_digest() -> str:
    """SHA-256 (16 digits) of the code that numbers depend on: pgkit up to training; no command line, no comparisons."""
    root = Path(__file__).resolve().parents[1]
    agents = Path(str(importlib.import_module("pgkit.agents").__file__)).parent
    files = {f"pgkit/{path.relative_to(root)}": path for path in root.rglob("*.py")}
    files |= {f"pgkit/agents/{path.name}": path for path in agents.glob("*.py")}
    digest = hashlib.sha256()
    for name in sorted(files):
        if not name.startswith(NO_NUMBERS):
            digest.update(name.encode() + b"\0" + files[name].read_bytes())
    return digest.hexdigest()[:16]


def cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended, in seconds."""
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


def hardware() -> dict[str, Any]:
    """System, processor, cores, memory and GPUs of this machine."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": available_cpus(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": [torch.cuda.get_device_name(index) for index in gpus],
        "cuda": torch.version.cuda,
    }


def _cpu_name() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _threads() -> dict[str, Any]:
    variables = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    return {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()} | variables


def _replace(path: Path, record: dict[str, Any]) -> None:
    write_text(path, json.dumps(record, indent=2) + "\n")
