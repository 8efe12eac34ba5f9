"""Work for one process: runs that train together as the members of one population."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, groupby, pairwise
from typing import Any, Generic, TypeVar

from pgkit.compare.execution.executors import Executor
from pgkit.compare.execution.worker import Part, PausedBatch, Trained
from pgkit.config.members import shared_settings
from pgkit.config.schema import TrainConfig

Owner = TypeVar("Owner")

TRIES = 2
"""Attempts at a job whose process crashes."""


@dataclass(frozen=True)
class Member(Generic[Owner]):
    """One run: whose it is, and its configuration with its seed."""

    owner: Owner
    config: TrainConfig


@dataclass(frozen=True)
class Job(Generic[Owner]):
    """Runs that train together until the next look at them.

    Attributes:
        members: of one population.
        stretch: how many stretches they will have trained after this one.
        paused: where they have paused together with others; None if they have not begun, or cannot be continued.
        tries: how often their process has crashed.
    """

    members: Sequence[Member[Owner]]
    stretch: int = 1
    paused: PausedBatch | None = None
    tries: int = 0

    def part(self, stretches: int) -> Part:
        """Return what a worker process trains."""
        return Part([member.config for member in self.members], self.stretch / stretches, self.paused)

    def steps_before(self, stretches: int) -> float:
        """Return about how many steps its members have trained before this stretch."""
        return sum(member.config.steps for member in self.members) * (self.stretch - 1) / stretches

    def next(self, kept: Sequence[int], saved: bytes | None) -> "Job[Owner]":
        """Return the next stretch of some members, by their positions, ascending."""
        configs = [member.config for member in self.members]
        paused = None if saved is None else PausedBatch(configs, saved, kept)
        return Job([self.members[index] for index in kept], self.stretch + 1, paused)


def with_seed(config: TrainConfig, seed: int, **changes: Any) -> TrainConfig:
    """Return the configuration of one run that nobody watches: without log rows and diagnosis."""
    return config.model_copy(
        update={"seed": seed, "seeds": None, "log_interval": config.steps, "diagnose": None, **changes}
    )


def split(members: Iterable[Member[Owner]], most: int) -> Iterator[Job[Owner]]:
    """Yield jobs of about equal size, of members that can share a population, at most so many in each.

    Optimizers and the agent's real numbers may differ within a population, all else is the same.
    """
    for _, group in groupby(sorted(members, key=_shared), key=_shared):
        alike = list(group)
        jobs = -(-len(alike) // most)
        bounds = [len(alike) * index // jobs for index in range(jobs + 1)]
        for first, last in pairwise(bounds):
            yield Job(alike[first:last])


def run_jobs(
    executor: Executor,
    stretches: int,
    take: Callable[[], Job[Owner] | None],
    done: Callable[[Job[Owner], Trained], None],
    crashed: Callable[[Job[Owner], str], None],
    on_steps: Callable[[float], None],
) -> None:
    """Run jobs until there are none.

    Args:
        executor: that trains them.
        stretches: of a whole run.
        take: the next job, called when a process is idle; None if there is none for now.
        done: called with each job that is done, and its result.
        crashed: called with each job whose process has crashed :data:`TRIES` times, and the reason.
        on_steps: called now and then with the steps that running jobs have trained, all in all.
    """
    running: dict[int, Job[Owner]] = {}
    steps: dict[int, float] = {}
    numbers = count()
    again: list[Job[Owner]] = []
    while True:
        while len(running) < executor.workers and (job := again.pop() if again else take()) is not None:
            number = next(numbers)
            running[number] = job
            steps[number] = job.steps_before(stretches)
            executor.start(number, job.part(stretches))
        if not running:
            return
        for event in executor.events(timeout=0.5):
            if event.name == "steps":
                steps[event.batch] = event.content
                continue
            job = running.pop(event.batch)
            del steps[event.batch]
            if event.name == "done":
                done(job, event.content)
            elif job.tries + 1 < TRIES:
                again.append(replace(job, tries=job.tries + 1))
            else:
                crashed(job, event.content)
        on_steps(sum(steps.values()))


def _shared(member: Member[Owner]) -> str:
    return json.dumps(shared_settings(member.config), sort_keys=True, default=repr)
