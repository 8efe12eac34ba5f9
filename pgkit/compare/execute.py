"""Running a plan: stage by stage, chunk by chunk, on an executor, so that stopping loses only the chunks in flight."""

import fcntl
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import pandas as pd

from pgkit.compare.checks import Scale, measure_baselines, scales
from pgkit.compare.chunks import Measured, cut, measure
from pgkit.compare.display import Display
from pgkit.compare.executors import Executor
from pgkit.compare.plan import Plan, Run
from pgkit.compare.results import LOCK, Store
from pgkit.compare.stages import Stage, stages
from pgkit.types import PgkitError

TRIES = 2
"""Of a chunk whose process crashes."""

Sizes = dict[tuple[str, str], int]


class Unfinished(PgkitError):
    """Some runs could not be run; the others were."""


class Forecast(NamedTuple):
    """What the rest of a stage costs.

    Attributes:
        runs: how many.
        env_steps: of training.
        evaluation_steps: of evaluation, at most: episodes at their time limit.
        seconds: wall time, at most.
    """

    runs: int
    env_steps: int
    evaluation_steps: int
    seconds: float


def execute(plan: Plan, store: Store, executor: Executor, display: Display) -> None:
    """Run what is missing.

    Raises:
        PgkitError: the directory belongs to another plan or origin, is in use, or cannot be written.
        Unfinished: chunks that failed twice; everything else is done.
    """
    store.check(plan)
    with _locked(store):
        store.begin(plan)
        started = time.perf_counter()
        try:
            scale = scales(plan, _baselines(plan, store))
            while (stage := stages(plan, scale, store.load())[-1]).todo:
                if failures := _run_stage(plan, scale, store, executor, display, stage):
                    raise Unfinished("; ".join(dict.fromkeys(failures)))
        finally:
            executor.close()
            session = {"command_line": list(sys.argv), "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
            store.add_session({**session, "wall_seconds": round(time.perf_counter() - started, 3)})


def forecast(plan: Plan, runs: Sequence[Run], workers: int, sizes: dict[tuple[str, str], Measured]) -> Forecast:
    """What these runs cost with so many workers."""
    steps = evaluation = 0
    seconds = 0.0
    for run in runs:
        config = plan.train_config(run)
        episodes = config.evaluation.episodes * (config.evaluation.points + 1) + 2 * config.evaluation.final_episodes
        at_most = episodes * (config.env.max_episode_steps or _time_limit(config.env.id))
        steps, evaluation = steps + config.steps, evaluation + at_most
        speed = sizes[run.environment, run.agent].steps_per_second
        seconds += (config.steps + at_most / EVALUATION_SPEED_UP) / speed / workers
    return Forecast(len(runs), steps, evaluation, seconds)


EVALUATION_SPEED_UP = 2.0
"""An evaluation step costs about half a training step: no gradient, no update."""


def measured(plan: Plan, runs: Sequence[Run], workers: int) -> dict[tuple[str, str], Measured]:
    """What each case among these runs costs here."""
    cases: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cases.setdefault((run.environment, run.agent), []).append(run)
    return {case: measure(plan, of_case, workers) for case, of_case in cases.items()}


def _time_limit(env_id: str) -> int:
    from pgkit.envs.make import find_spec

    return find_spec(env_id).max_episode_steps or 1000


def _baselines(plan: Plan, store: Store) -> pd.DataFrame:
    found = store.baselines()
    if found is None:
        found = measure_baselines(plan)
        store.add_baselines(found)
    return found


def _run_stage(
    plan: Plan, scale: dict[str, Scale], store: Store, executor: Executor, display: Display, stage: Stage
) -> list[str]:
    """Run a stage's missing runs; returns the reasons of chunks that failed for good."""
    display.begin(stage, sum(plan.train_config(run).steps for run in stage.todo))
    sizes = {case: cost.size for case, cost in measured(plan, stage.todo, executor.workers).items()}
    chunks = dict(enumerate(cut(stage.todo, sizes)))
    waiting, under_way, tries, failures = deque(chunks), set[int](), dict.fromkeys(chunks, 0), list[str]()
    while waiting or under_way:
        while waiting and len(under_way) < executor.workers:
            number = waiting.popleft()
            tries[number] += 1
            under_way.add(number)
            executor.start(number, [plan.train_config(run) for run in chunks[number]])
        for event in executor.events(timeout=0.5):
            if event.kind == "steps":
                display.steps(event.chunk, event.content)
                continue
            under_way.discard(event.chunk)
            if event.kind == "done":
                store.add(chunks[event.chunk], event.content)
                display.done(event.chunk, len(chunks[event.chunk]), sum(row["env_steps"] for row in event.content))
                display.leaders(plan, scale, store.load())
            elif tries[event.chunk] < TRIES:
                display.say(f"{_named(chunks[event.chunk])}: {event.content}; trying again")
                waiting.append(event.chunk)
            else:
                failures.append(f"{_named(chunks[event.chunk])}: {event.content}")
                display.say(failures[-1])
        display.refresh()
    return failures


def _named(chunk: Sequence[Run]) -> str:
    first = chunk[0]
    return f"{len(chunk)} runs of {first.environment}, {first.agent} ({first.stage})"


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Only one process at a time works on a comparison; the lock goes with the process, however it ends."""
    try:
        store.directory.mkdir(parents=True, exist_ok=True)
        file = open(store.directory / LOCK, "w")  # noqa: SIM115 - held open while the comparison runs
    except OSError as error:
        raise PgkitError(f"cannot write {store.directory}: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise PgkitError(f"{store.directory} is in use by another process") from None
        yield
