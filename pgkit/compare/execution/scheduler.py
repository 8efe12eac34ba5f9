"""Run a plan stage by stage and batch by batch; a stop loses only the batches that are running."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from pgkit.compare.execution.batches import check_arms, choose_size, measure, split_runs
from pgkit.compare.execution.display import Display
from pgkit.compare.execution.executors import Executor
from pgkit.compare.execution.store import LOCK, Store
from pgkit.compare.plan.baselines import ScoreScale, measure_baselines, scales
from pgkit.compare.plan.plan import Plan, Run
from pgkit.compare.selection.stages import Stage, stages
from pgkit.config.schema import TrainConfig
from pgkit.envs.make import find_spec
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
                if failures := _run_stage(plan, scale, store, executor, display, stage):
                    raise Unfinished("; ".join(dict.fromkeys(failures)))
        finally:
            session = {"command_line": list(sys.argv), "ended_at": datetime.now(UTC).isoformat(timespec="seconds")}
            store.add_session({**session, "wall_seconds": round(time.perf_counter() - started, 3)})


def forecast(plan: Plan, workers: int) -> list[dict[str, Any]]:
    """Estimate the cost of a plan on this machine: runs, environment steps and minutes for each stage and case.

    Extensions of the grid are not counted. Evaluation episodes count with their time limit, and their steps as steps of
    training, which take longer, so the minutes are an upper bound.
    """
    points = {arm: plan.points(arm) for arm in plan.arms}
    settings = {"tuning": len(next(iter(points.values()))), "evaluation": 1, "neighbour": 1 if plan.all_tuned else 2}
    seeds = {"tuning": plan.tuning_seeds, "evaluation": plan.evaluation_seeds, "neighbour": plan.neighbour_seeds}
    check_arms(plan)
    rows: list[dict[str, Any]] = []
    for case in plan.cases:
        some = [
            Run("tuning", case.environment, case.agent, arm, point.lr, seed, point.setting)
            for arm, of_arm in points.items()
            for point in of_arm
            for seed in plan.tuning_seeds
        ]
        speed = measure(plan, some, workers).steps_per_second
        for stage, of_stage in seeds.items():
            runs = len(plan.arms) * settings[stage] * len(of_stage)
            steps = runs * case.config.steps
            evaluation = runs * _evaluation_steps(case.config)
            seconds = (steps + evaluation) / speed / workers
            costs = {"env_steps": steps, "evaluation_steps_at_most": evaluation, "minutes_at_most": seconds / 60}
            rows.append({"stage": stage, "environment": case.environment, "agent": case.agent, "runs": runs, **costs})
    total = {key: sum(row[key] for row in rows) for key in ("runs", *costs)}
    return [*rows, {"stage": "all", "environment": "", "agent": "", **total}]


def _evaluation_steps(config: TrainConfig) -> int:
    """Return the environment steps of a run's evaluations if every episode lasts until the time limit."""
    settings = config.evaluation
    episodes = settings.episodes * (settings.points + 1) * (1 + settings.greedy) + 2 * settings.final_episodes
    return episodes * (config.env.max_episode_steps or find_spec(config.env.id).max_episode_steps or 1000)


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
    display.begin(stage, sum(plan.train_config(run).steps for run in stage.todo))
    batches = dict(enumerate(split_runs(stage.todo, _sizes(plan, stage.todo, executor.workers))))
    waiting = deque(batches)
    under_way = set[int]()
    tries = dict.fromkeys(batches, 0)
    failures = list[str]()
    while waiting or under_way:
        while waiting and len(under_way) < executor.workers:
            number = waiting.popleft()
            tries[number] += 1
            under_way.add(number)
            executor.start(number, [plan.train_config(run) for run in batches[number]])
        for event in executor.events(timeout=0.5):
            if event.name == "steps":
                display.steps(event.batch, event.content)
                continue
            under_way.discard(event.batch)
            if event.name == "done":
                store.add(batches[event.batch], event.content)
                display.done(event.batch, len(batches[event.batch]), sum(row["env_steps"] for row in event.content))
                display.leaders(plan, scale, store.load)
            elif tries[event.batch] < TRIES:
                display.say(f"{_named(batches[event.batch])}: {event.content}; trying again")
                waiting.append(event.batch)
            else:
                failures.append(f"{_named(batches[event.batch])}: {event.content}")
                display.say(failures[-1])
        display.refresh()
    return failures


def _sizes(plan: Plan, runs: Sequence[Run], workers: int) -> dict[tuple[str, str], int]:
    """Return the population size of each case."""
    cases: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        cases.setdefault((run.environment, run.agent), []).append(run)
    return {case: choose_size(plan, of_case, workers) for case, of_case in cases.items()}


def _named(batch: Sequence[Run]) -> str:
    """Name the runs of a batch: case, stage, arms with their learning rates, and seeds."""
    first = batch[0]
    arms: dict[str, dict[str, None]] = {}
    for run in batch:
        arms.setdefault(run.optimizer, {})[f"{run.lr:g}"] = None
    at_rates = "; ".join(f"{arm} at lr {', '.join(rates)}" for arm, rates in arms.items())
    seeds = ", ".join(map(str, sorted({run.seed for run in batch})))
    return f"{len(batch)} runs of {first.environment}, {first.agent} ({first.stage}: {at_rates}; seeds {seeds})"


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
