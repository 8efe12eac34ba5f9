"""What is installed and how pgkit computes here, and the command for what is missing."""

import importlib.util
import platform
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

DISTRIBUTION = "pgkit-rl"

CORE = ("torch", "numpy", "gymnasium", "llvmlite")
"""Packages whose versions decide about results and bugs."""


class Finding(NamedTuple):
    """One line of ``pgkit doctor``.

    Attributes:
        what: what was looked for.
        ok: whether it is there.
        text: what was found.
        remedy: the command that installs it, or a setting; empty if there is nothing to do.
    """

    what: str
    ok: bool
    text: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at the installation; nothing is written, and what is missing is no error."""
    return [
        Finding("pgkit", True, f"{version(DISTRIBUTION)} in {Path(__file__).parents[1]}"),
        Finding("Python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("packages", True, ", ".join(f"{name} {version(name)}" for name in CORE)),
        *_machine(),
        _compiler(),
        _mujoco(),
        _ffmpeg(),
        *_extras(),
    ]


def _machine() -> Iterator[Finding]:
    """Cores, and GPUs that torch can use."""
    import torch

    from pgkit.runs.provenance import hardware

    machine = hardware()
    memory = machine["memory_bytes"] / 2**30
    yield Finding(
        "cores", True, f"{machine['usable_cores']} of {machine['cores']} ({machine['cpu']}), {memory:.0f} GiB memory"
    )
    if machine["gpus"]:
        yield Finding("CUDA", True, f"{machine['cuda']}: {', '.join(machine['gpus'])} (device=cuda)")
        return
    build = f"this torch is built for CUDA {machine['cuda']}" if machine["cuda"] else "this torch is a CPU build"
    remedy = "the NVIDIA driver" if torch.version.cuda else "pip install torch as pytorch.org/get-started/locally says"
    yield Finding("CUDA", False, f"no GPU that torch can use, {build}", remedy)


def _compiler() -> Finding:
    """What is compiled, and where machine code is cached."""
    from pgkit.compiler.jit import cache_directory
    from pgkit.errors import PgkitError
    from pgkit.system.cpu import compile_mode

    try:
        mode = compile_mode()
    except PgkitError as error:
        return Finding("compiler", False, str(error), "unset PGKIT_COMPILE")
    directory = cache_directory()
    files = [path.stat().st_size for path in directory.glob("*")] if directory is not None else []
    cache = f"{len(files)} entries in {directory}, {sum(files) / 1e6:.1f} MB" if directory else "no home for a cache"
    remedy = "" if mode == "graphs" else "unset PGKIT_COMPILE for full speed"
    return Finding("compiler", mode == "graphs", f"PGKIT_COMPILE={mode}; {cache}", remedy)


def _mujoco() -> Finding:
    installed = _version("mujoco")
    text = f"mujoco {installed}" if installed else "not installed (HalfCheetah-v5, Ant-v5 and so on)"
    return Finding("MuJoCo", bool(installed), text, "" if installed else "pip install 'gymnasium[mujoco]'")


def _ffmpeg() -> Finding:
    """The program that encodes videos: moviepy brings one, or takes that of the system."""
    if importlib.util.find_spec("imageio_ffmpeg"):
        from imageio_ffmpeg import get_ffmpeg_exe

        try:
            return Finding("ffmpeg", True, get_ffmpeg_exe())
        except RuntimeError:  # this package has none for this platform, and the system has none either
            return Finding("ffmpeg", False, "not found", "install ffmpeg by the system's package manager")
    path = shutil.which("ffmpeg")
    return Finding(
        "ffmpeg", path is not None, path or "not found", "" if path else f"pip install '{DISTRIBUTION}[video]'"
    )


def _extras() -> Iterator[Finding]:
    """Each extra of pgkit with the packages that it installs, as the installed metadata names them."""
    packages: dict[str, list[str]] = {}
    for requirement in requires(DISTRIBUTION) or []:
        package = re.match(r"[\w.-]+", requirement)
        marker = re.search(r"""extra == ["']([\w-]+)["']""", requirement)
        if package is not None and marker is not None and package[0] != DISTRIBUTION:
            packages.setdefault(marker[1], []).append(package[0])
    for extra, names in sorted(packages.items()):
        versions = {each: _version(each) for each in names}
        missing = [each for each, installed in versions.items() if installed is None]
        present = ", ".join(f"{each} {installed}" for each, installed in versions.items() if installed)
        text = "; ".join(filter(None, [present, f"not installed: {', '.join(missing)}" if missing else ""]))
        yield Finding(f"extra {extra}", not missing, text, f"pip install '{DISTRIBUTION}[{extra}]'" if missing else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
