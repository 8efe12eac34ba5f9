"""Programs that take turns at work: each runs only when asked, so that the mood of the machine hits all of them alike.

Needs the standard library only: one of the programs has an environment of its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple


def serve(advance: Callable[[], int], report: Callable[[], Mapping[str, Any]] = dict) -> None:
    """The program's end: for each line, a number of seconds, work so long and answer with steps and seconds.

    It works at least once in each turn: 0 seconds are a single ``advance``.

    Args:
        advance: works a little, and returns how many environment steps that were.
        report: anything else for the answer, since the last one.
    """
    advance()
    report()
    print("ready", flush=True)
    for line in sys.stdin:
        start, steps = time.perf_counter(), advance()
        while time.perf_counter() - start < float(line):
            steps += advance()
        seconds, megabytes = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"steps": steps, "seconds": seconds, "megabytes": megabytes, **report()}), flush=True)


class Contender:
    """One or more processes that work at the same time; their steps are added."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self.turns: list[list[dict[str, Any]]] = []
        self._processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        for process in self._processes:
            self._read(process, until="ready")

    def turn(self, seconds: float) -> None:
        """Work for that long."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{seconds}\n")
            process.stdin.flush()
        self.turns.append([json.loads(self._read(process, until="{")) for process in self._processes])

    @property
    def speeds(self) -> list[float]:
        """Steps per second of each turn."""
        return [sum(answer["steps"] / answer["seconds"] for answer in answers) for answers in self.turns]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()

    @staticmethod
    def _read(process: "subprocess.Popen[str]", until: str) -> str:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(until):
                return line
        raise SystemExit(f"{' '.join(map(str, process.args))} ended with code {process.wait()}")  # type: ignore[arg-type]


class Spread(NamedTuple):
    """Median and range of the turns."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Of some numbers."""
        return cls(median(numbers), min(numbers), max(numbers))

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.least:{form}} - {self.most:{form}})"


def take_turns(contenders: Mapping[str, Contender], repetitions: int, seconds: float) -> None:
    """Everybody works once in each repetition, and all end."""
    for _ in range(repetitions):
        for contender in contenders.values():
            contender.turn(seconds)
    for contender in contenders.values():
        contender.close()


def ratio(first: Contender, second: Contender) -> Spread:
    """How much faster the first is, turn by turn."""
    return Spread.of([a / b for a, b in zip(first.speeds, second.speeds, strict=True)])
