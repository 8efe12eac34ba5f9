"""Run a plan stage by stage and batch by batch; a stop loses only the batches that are running."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pandas as pd

from pgkit.compare.execution.batches import Batch, check_arms, make_batches, name_batch
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Executor
from pgkit.compare.execution.store import LOCK, Store
from pgkit.compare.execution.worker import Part, PausedBatch, Trained
from pgkit.compare.plan.baselines import ScoreScale, measure_baselines, scales
from pgkit.compare.plan.plan import Plan
from pgkit.compare.selection.stages import Stage, stages
from pgkit.errors import PgkitError
from pgkit.system.files import as_write_error, lock

TRIES = 2
"""Attempts at a batch whose process crashes."""


class Unfinished(PgkitError):
    """Some runs failed, all others are stored; the same command tries the failed ones again."""

    exit_code = 1


def execute(plan: Plan, store: Store, executor: Executor, display: Display) -> None:
    """Run what is missing of a plan.

    Raises:
        PgkitError: the directory belongs to another plan or version, is in use, or cannot be written.
        Unfinished: some batches failed twice; everything else is done.
    """
    store.check(plan)
    check_arms(plan)
    with _locked(store):
        store.begin(plan)
        started = time.perf_counter()
        try:
            scale = scales(plan, _baselines(plan, store))
            while (stage := stages(plan, scale, store.load())[-1]).todo:
                if stage.name != "tuning":
                    store.forget_paused()
                if failures := _run_stage(plan, scale, store, executor, display, stage):
                    raise Unfinished("; ".join(dict.fromkeys(failures)))
        finally:
            session = {"command_line": list(sys.argv), "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
            store.add_session({**session, "wall_seconds": round(time.perf_counter() - started, 3)})


def _baselines(plan: Plan, store: Store) -> pd.DataFrame:
    baselines = store.baselines()
    if baselines is None:
        baselines = measure_baselines(plan)
        store.add_baselines(baselines)
    return baselines


def _run_stage(
    plan: Plan, scale: dict[str, ScoreScale], store: Store, executor: Executor, display: Display, stage: Stage
) -> list[str]:
    """Run the missing runs of a stage; return the reasons of the batches that failed for good."""
    batches = dict(enumerate(make_batches(plan, stage.todo, store.load(), executor.workers)))
    before = sum(batch.env_steps for batch in batches.values())
    display.begin(stage, stage.share * sum(plan.train_config(run).steps for run in stage.todo) - before)
    waiting = deque(batches)
    under_way = set[int]()
    tries = dict.fromkeys(batches, 0)
    failures = list[str]()
    while waiting or under_way:
        while waiting and len(under_way) < executor.workers:
            number = waiting.popleft()
            tries[number] += 1
            under_way.add(number)
            executor.start(number, _part(plan, store, batches[number], stage.share))
        for event in executor.events(timeout=0.5):
            batch = batches[event.batch]
            if event.name == "steps":
                display.steps(event.batch, event.content - batch.env_steps)
                continue
            under_way.discard(event.batch)
            if event.name == "done":
                _keep(store, batch, event.content)
                steps = sum(row["env_steps"] for row in event.content.rows) - batch.env_steps
                display.done(event.batch, len(batch.runs) if stage.share == 1 else 0, steps)
                display.leaders(plan, scale, store.load)
            elif tries[event.batch] < TRIES:
                display.say(f"{name_batch(batch.runs)}: {event.content}; trying again")
                waiting.append(event.batch)
            else:
                failures.append(f"{name_batch(batch.runs)}: {event.content}")
                display.say(failures[-1])
        display.refresh()
    return failures


def _part(plan: Plan, store: Store, batch: Batch, share: float) -> Part:
    """Return what a worker needs to train a batch; runs whose pause is not stored begin anew."""
    configs = [plan.train_config(run) for run in batch.runs]
    paused = store.paused_batch(batch.paused) if batch.paused else None
    if paused is None:
        return Part(configs, share)
    together, saved = paused
    members = [together.index(run) for run in batch.runs]
    return Part(configs, share, PausedBatch([plan.train_config(run) for run in together], saved, members))


def _keep(store: Store, batch: Batch, trained: Trained) -> None:
    """Store the results of a batch; nobody needs any more where its runs had paused before."""
    store.add(batch.runs, trained)
    if batch.paused:
        store.forget_paused(batch.paused)


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """Hold the lock of a comparison's directory, which is created when missing.

    Raises:
        PgkitError: another process holds it, or the system refuses to write.
    """
    with as_write_error(store.directory):
        store.directory.mkdir(parents=True, exist_ok=True)
    with lock(store.directory / LOCK, f"{store.directory} is in use by another process"):
        yield
