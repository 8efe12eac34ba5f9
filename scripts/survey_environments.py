"""Try pgkit on environments of other packages, and write what happens to each as a row of a Markdown table.

``python scripts/survey_environments.py`` takes the list ``scripts/survey_environments.txt`` and adds the rows that
``pgkit/envs/SURVEY.md`` lacks; ``--again`` also repeats those that did not work. A line of the list is a package, an id
and overrides, as for ``pgkit train``:

    minigrid  minigrid:MiniGrid-Empty-5x5-v0  env.max_episode_steps=100

Each environment has a process of its own with a time limit. There it is trained by both agents, evaluated, trained once
more and stopped, and resumed, through the command line. A row says *works* if the resumed run has the result of the one
that was not stopped, *works, resume inexact* if pgkit said beforehand that it would not, or else the line that pgkit
printed. An answer that is no such line is marked **wrong**.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import pkgutil
import re
import shlex
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
AGENTS = ("actor-critic", "reinforce")
SETTINGS = (
    "env.backend=gymnasium",
    "steps=2000",
    "envs_per_member=2",
    "rollout_steps=10",
    "policy.hidden=[16]",
    "evaluation.points=1",
    "evaluation.episodes=1",
    "evaluation.final_episodes=2",
    "checkpoint_points=0",
)
INTRO = """# Environments of other packages

Made by `python scripts/survey_environments.py`: each environment is made, trained for 2,000 steps by both agents (two
environments per member), evaluated, and trained once more, stopped after the first updates and resumed. *works*: all of
it, and the resumed run has the result of the one that was not stopped. *works, resume inexact*: the same, but pgkit
says at the start that a resumed run restarts its episodes, and why. Everything else is the line that pgkit prints.
`survey_wrappers` is `scripts/survey_wrappers.py`; limits are `env.max_episode_steps`.
"""


class Entry(NamedTuple):
    """A line of the list."""

    package: str
    env_id: str
    overrides: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first cell of its row, and what finds it there."""
        return f"`{' '.join([self.env_id, *self.overrides])}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path, default=ROOT / "scripts" / "survey_environments.txt")
    parser.add_argument("--out", type=Path, default=ROOT / "pgkit" / "envs" / "SURVEY.md", help="the table")
    parser.add_argument(
        "--only", nargs="*", default=[""], help="only environments whose id or overrides contain one of these"
    )
    parser.add_argument("--again", action="store_true", help="repeat rows that did not work")
    parser.add_argument("--rows", type=int, default=10_000, help="stop after so many new rows")
    parser.add_argument("--limit", type=int, default=240, help="seconds for one environment")
    parser.add_argument("--log", type=Path, help="append everything that the processes print to this file")
    arguments = parser.parse_args()
    entries = [each for each in read_list(arguments.list) if any(text in each.title for text in arguments.only)]
    rows = read_rows(arguments.out)
    due = [entry for entry in entries if is_due(rows.get(entry.title), arguments.again)]
    import_everything()
    for entry in due[: arguments.rows]:
        outcome = survey(entry, arguments.limit, arguments.log)
        print(f"{entry.title}: {outcome}", flush=True)
        write_row(arguments.out, arguments.list, entry, outcome)
    sys.exit(not due)


def read_list(path: Path) -> list[Entry]:
    """Entries of a list; blank lines and lines that begin with ``#`` are none."""
    lines = [shlex.split(line, comments=True) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Entry(package, env_id, tuple(overrides)) for package, env_id, *overrides in filter(None, lines)]


def read_rows(path: Path) -> dict[str, str]:
    """Rows of a table, by their first cell."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| `")}


def is_due(row: str | None, again: bool) -> bool:
    """Whether an environment is to be tried: it has no row yet, or one that did not work and is repeated."""
    return row is None or (again and " | works" not in row)


def write_row(path: Path, list_path: Path, entry: Entry, outcome: str) -> None:
    """Add or replace a row. The table is read again, because another process may add rows meanwhile."""
    rows = read_rows(path)
    rows[entry.title] = f"| {entry.title} | {installed(entry.package)} | {outcome.replace('|', '&#124;')} |"
    order = [each.title for each in read_list(list_path)]
    lines = [rows[title] for title in order if title in rows]
    works = sum(" | works" in line for line in lines)
    wrong = sum("**wrong**" in line for line in lines)
    summary = (
        f"Of {len(order)} environments in the list {len(lines)} were tried so far: {works} work, {wrong} went wrong, "
    )
    summary += f"{len(lines) - works - wrong} are refused in one line that says why."
    table = ["| environment | package | what happens |", "|---|---|---|", *lines]
    path.write_text("\n".join([INTRO, summary, "", *table, ""]), encoding="utf-8")


def installed(package: str) -> str:
    """A package and its version."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def import_everything() -> None:
    """Import all of pgkit, so that the processes, which are forked, need not."""
    import pgkit

    for module in pkgutil.walk_packages([str(Path(pgkit.__file__).parent)], "pgkit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("typer.testing", "gymnasium", "pandas", "pyarrow.parquet", "torch._meta_registrations"):
        importlib.import_module(name)


def survey(entry: Entry, limit: int, log: Path | None) -> str:
    """Try an environment in a process of its own; what happens to both agents, in one line."""
    with tempfile.TemporaryDirectory() as place:
        pid = fork(partial(survey_in_this_process, Path(place), limit, entry))
        exit_code = wait(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what it has started and not ended
        outcomes = {path.stem: path.read_text(encoding="utf-8") for path in Path(place).glob("*.txt")}
        output = (Path(place) / "output").read_text(encoding="utf-8", errors="replace")
    if log is not None:
        with log.open("a", encoding="utf-8") as stream:
            stream.write(f"\n===== {entry.title}\n{output}\n{outcomes}\n")
    unfinished = [agent for agent in AGENTS if agent not in outcomes]
    if unfinished:
        outcomes[unfinished[0]] = how_it_ended(exit_code, limit)
    if len(set(outcomes.values())) == 1:
        return next(iter(outcomes.values()))
    return "; ".join(f"{agent}: {outcomes[agent]}" for agent in AGENTS if agent in outcomes)


def fork(function: Callable[[], object]) -> int:
    """Start a function in a copy of this process; its process id.

    :mod:`multiprocessing` would make pgkit believe that it is in a worker process, and say so in its messages.
    """
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def wait(pid: int) -> int:
    """Wait for a process; its exit code, negative if a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def how_it_ended(exit_code: int, limit: int) -> str:
    """Describe a process that ended before an agent was through."""
    if exit_code == -signal.SIGALRM:
        return f"**wrong**: not through after {limit} s"
    return f"**wrong**: the process ended with exit code {exit_code}"


def survey_in_this_process(place: Path, limit: int, entry: Entry) -> None:
    """Try an environment with each agent, and write what happens to ``place/<agent>.txt``."""
    os.setpgid(0, 0)
    signal.alarm(limit)  # its default action ends the process, wherever it is
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for processes in the background
    os.chdir(place)
    output = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for agent in AGENTS:
        words = [f"cartpole-{agent}", f"env.id={entry.env_id}", *SETTINGS, *entry.overrides]
        words = [word for word in words if agent == "actor-critic" or not word.startswith("rollout_steps")]
        try:
            outcome = survey_agent(words, place / agent)
        except Refused as refused:
            outcome = re.sub(rf"{re.escape(str(place))}/[\w-]+", "RUN", str(refused))
        except Wrong as wrong:
            outcome = f"**wrong**: {wrong}"
        (place / f"{agent}.txt").write_text(" ".join(outcome.split()), encoding="utf-8")


class Refused(Exception):
    """pgkit has answered with an error of one line."""


class Wrong(Exception):
    """pgkit did something that it should not do."""


def call(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function in a process of its own, as a command has one: some environments can be used in one only.

    Raises:
        Refused: raised by the function.
        Wrong: it raised something else, or its process was ended.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)

    def send_error() -> None:
        try:
            function(*arguments)
        except Refused as refused:
            sender.send(refused)
        except Exception as error:
            traceback.print_exc()
            sender.send(Wrong(f"traceback: {type(error).__name__}: {error}"))
        else:
            sender.send(None)

    exit_code = wait(fork(send_error))
    error = receiver.recv() if receiver.poll() else Wrong(f"the process ended with exit code {exit_code}")
    if error is not None:
        raise error


def survey_agent(words: list[str], directory: Path) -> str:
    """Train, evaluate, stop and resume with one agent.

    Raises:
        Refused: pgkit says that it does not work.
        Wrong: it does not work, and pgkit does not say so.
    """
    whole = directory / "whole"
    stopped = directory / "stopped"
    call(pgkit, "train", *words, "--out", str(whole), "--quiet")
    call(pgkit, "evaluate", str(whole), "--episodes", "2")
    call(train_and_stop, words, stopped)
    call(pgkit, "resume", str(stopped), "--quiet")
    reason = json.loads((stopped / "provenance.json").read_text(encoding="utf-8")).get("inexact_resume")
    if reason is not None:
        return f"works, resume inexact: {reason}"
    if result(whole) != result(stopped):
        raise Wrong("the resumed run has another result, and nothing is said")
    return "works"


def pgkit(*words: str) -> None:
    """Run a command of pgkit's in this process.

    Raises:
        Refused: it ends with an error of one line, or with the line that says where the run's numbers stopped being
            finite.
        RuntimeError: it ends in any other way.
    """
    from typer.testing import CliRunner

    from pgkit.cli import app

    answer = CliRunner().invoke(app, words, catch_exceptions=True)
    print(f"--- pgkit {shlex.join(words)}\n{answer.output}", flush=True)
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    if answer.exit_code:
        errors = re.findall(r"^error: (.*)$", answer.stderr, re.MULTILINE)
        errors = errors or re.findall(r"^(seed \d+ failed .*)$", answer.stderr, re.MULTILINE)
        if len(errors) != 1:
            raise RuntimeError(f"pgkit {words[0]}: exit code {answer.exit_code} and {len(errors)} lines")
        raise Refused(errors[0] if words[0] == "train" else f"{words[0]}: {errors[0]}")


def train_and_stop(words: list[str], directory: Path) -> None:
    """Train as ``pgkit train`` does, and send Ctrl-C after the first update.

    Raises:
        RuntimeError: training did not stop.
    """
    from pgkit import load_config, train
    from pgkit.system.signals import Stopped

    name, *overrides = words
    sent: list[float] = []

    def interrupt(steps: float) -> None:
        if not sent:
            sent.append(steps)
            os.kill(os.getpid(), signal.SIGINT)

    try:
        train(load_config(name, overrides), directory, on_steps=interrupt)
    except Stopped:
        print(f"--- stopped after {sent[0]:.0f} steps", flush=True)
    else:
        raise RuntimeError("training ended although it was interrupted")


def result(directory: Path) -> dict[str, Any]:
    """The result of a run, without what clocks say."""
    table = json.loads((directory / "result.json").read_text(encoding="utf-8"))
    return {name: value for name, value in table.items() if name != "wall_seconds"}


if __name__ == "__main__":
    main()
