"""What a comparison costs on this machine: runs and steps are counted, minutes estimated from short trials."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import cycle, islice
from statistics import mean
from typing import Any, NamedTuple

from pgkit.compare.execution.batches import check_arms, choose_sizes, name_batch, split_runs
from pgkit.compare.execution.executors import LocalExecutor
from pgkit.compare.execution.trial import Trial, try_batch
from pgkit.compare.plan.baselines import EPISODES
from pgkit.compare.plan.plan import Case, Plan, Run, SearchPoint
from pgkit.compare.plan.screening import least_share
from pgkit.compare.selection.stages import extended
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError

REPORT_SECONDS = (5.0, 20.0)
"""What starting, and the analysis and report of one case take: at best, and with room."""

STAGES = 3
"""Tuning, evaluation and neighbours: each begins with what a trial does."""

Trials = Mapping[tuple[str, str, str], Sequence[Trial]]
"""Trials of the batches that hold an arm, by (environment, agent, arm)."""

NUMBERS = ("runs", "env_steps", "evaluation_steps", "minutes_from", "minutes_to")
"""Columns of a forecast that can be added."""

Row = dict[str, Any]


class Forecast(NamedTuple):
    """The cost of a comparison.

    Attributes:
        rows: one for each stage and case, then their sum. ``minutes_from`` is for episodes as short as those of
            untrained policies, and grids that are not extended; all other numbers for episodes as long as they may be,
            and grids extended as far as they may be.
        workers: processes.
        trial_seconds: how long measuring took.
        screened: whether rates are dropped on the way: how many, only the runs will say.
        endless: environments without a time limit, and the steps of the longest episode of their trial, which stand
            for those that an episode may have.
    """

    rows: list[Row]
    workers: int
    trial_seconds: float
    endless: Mapping[str, int] = {}
    screened: bool = False

    @property
    def sentence(self) -> str:
        """What is printed below the rows: about how long, and what that rests on."""
        low, high = (format_minutes(self.rows[-1][name]) for name in ("minutes_from", "minutes_to"))
        trial = f"a trial of {self.trial_seconds:.0f} s on this machine, as busy as it is now"
        lines = [
            f"about {low} to {high} minutes with {self.workers} worker{'s' * (self.workers > 1)}, from {trial}",
            f"{low}: episodes as short as those of untrained policies, no grid extended",
            f"{high}: episodes up to their time limit, every grid extended as far as it may be",
        ]
        if self.screened:
            lines.append(f"screening drops rates on the way: {low} is for as many as it can drop, {high} for none")
        lines += [
            f"{environment} has no time limit: {high} is for episodes of up to {steps:,} steps, the longest of the "
            "trial; it takes longer if training makes them longer (env.max_episode_steps sets a limit)"
            for environment, steps in self.endless.items()
        ]
        return "\n".join(lines)


def forecast(plan: Plan, workers: int) -> Forecast:
    """Estimate the cost of a plan on this machine, as busy as it is, with so many processes.

    Raises:
        PgkitError: this machine cannot run the plan.
    """
    started = time.perf_counter()
    check_arms(plan)
    runs = expected_runs(plan)
    sizes = choose_sizes(plan, runs["tuning"], workers)
    trials = try_batches(plan, split_runs(runs["tuning"], sizes), workers)
    seconds = time.perf_counter() - started
    rows = [_baseline_row(environment, trials) for environment in plan.config.environments]
    for stage, of_stage in runs.items():
        for case in plan.cases:
            of_case = [run for run in of_stage if (run.environment, run.agent) == case[:2]]
            if of_case:
                share = screening_share(plan) if stage == "tuning" else 1.0
                rows.append(_stage_row(stage, case, split_runs(of_case, sizes), trials, workers, share))
    least, most = (cost * len(plan.cases) for cost in REPORT_SECONDS)
    rows.append(_row("start, report", "", "", seconds=(seconds + least, STAGES * seconds + most)))
    total = {key: sum(row[key] for row in rows) for key in NUMBERS}
    rows.append({"stage": "all", "environment": "", "agent": "", **total})
    return Forecast(rows, workers, seconds, _endless(trials), bool(plan.rungs))


def screening_share(plan: Plan) -> float:
    """Return the smallest share of the steps of the whole grid that tuning may take."""
    return least_share(plan.rungs, len(plan.rates), len(plan.tuning_seeds)) if plan.rungs else 1.0


def expected_runs(plan: Plan) -> dict[str, list[Run]]:
    """Return the most runs that there can be, by stage; the first setting stands for those that results will choose."""
    everything = {arm: plan.points(arm) for arm in plan.arms}
    first = {arm: points[:1] for arm, points in everything.items()}
    grid = not plan.all_tuned and len(plan.rates) > 1
    most = 2 * plan.config.extensions
    beyond = sorted({*extended(plan.rates, most, most)} - {*plan.rates}) if grid else ()
    beside = 3 if grid else int(plan.all_tuned)  # the rates beside the selected one, and another second-best setting
    stages = {
        "tuning": (everything, plan.tuning_seeds),
        "extension": (dict.fromkeys(plan.arms, tuple(map(SearchPoint, beyond))), plan.tuning_seeds),
        "evaluation": (first, plan.evaluation_seeds),
        "neighbour": ({arm: beside * points for arm, points in first.items()}, plan.neighbour_seeds),
    }
    return {
        stage: [
            Run(stage, case.environment, case.agent, arm, point.lr, seed, point.setting)
            for case in plan.cases
            for arm, points in points_by_arm.items()
            for point in points
            for seed in seeds
        ]
        for stage, (points_by_arm, seeds) in stages.items()
    }


def try_batches(plan: Plan, batches: Iterable[Sequence[Run]], workers: int) -> Trials:
    """Try one batch of every combination of a case and arms, as many at a time as there will be in earnest.

    Raises:
        PgkitError: a trial failed.
    """
    samples = {
        (batch[0].environment, batch[0].agent, *dict.fromkeys(run.optimizer for run in batch)): batch
        for batch in batches
    }
    waiting = list(islice(cycle(samples), max(len(samples), workers)))
    running: dict[int, tuple[str, ...]] = {}
    trials: dict[tuple[str, str, str], list[Trial]] = {}
    with closing(LocalExecutor(workers, try_batch)) as executor:
        while waiting or running:
            while waiting and len(running) < workers:
                key = waiting.pop(0)
                running[len(waiting)] = key
                executor.start(len(waiting), [plan.train_config(run) for run in samples[key]])
            for event in executor.events(timeout=0.5):
                environment, agent, *arms = key = running.pop(event.batch)
                if event.name == "failed":
                    raise PgkitError(f"{name_batch(samples[key])}: {event.content}")
                for arm in arms:
                    trials.setdefault((environment, agent, arm), []).append(event.content)
    return trials


def format_minutes(minutes: float) -> str:
    """Two digits: nobody knows the third.

    >>> [format_minutes(minutes) for minutes in (0.04, 1.26, 12.6, 1234.5)]
    ['0.1', '1.3', '13', '1,200']
    """
    if minutes < 9.95:
        return f"{max(minutes, 0.1):.1f}"
    return f"{round(minutes, 1 - math.floor(math.log10(minutes))):,.0f}"


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Return how long jobs take if each is started as soon as one of the workers is free."""
    busy = [0.0] * workers
    for job in seconds:
        busy[busy.index(min(busy))] += job
    return max(busy)


def episode_seconds(trial: Trial, steps: float) -> float:
    """Return what an evaluation episode of so many steps takes; more steps than tried are as fast as in training.

    Most of a short episode is its beginning, so seconds do not grow in proportion to steps.
    """
    speed = max(trial.training_speed, trial.episode_steps / trial.episode_seconds)
    return trial.episode_seconds + (steps - trial.episode_steps) / speed


def run_seconds(config: TrainConfig, trial: Trial, steps: float) -> float:
    """Return what a run takes beside others of its batch, if the episodes of its evaluations have so many steps."""
    return config.steps / trial.training_speed + _episodes(config) * episode_seconds(trial, steps)


def _stage_row(
    stage: str, case: Case, batches: Sequence[Sequence[Run]], trials: Trials, workers: int, share: float
) -> Row:
    """Return the row of a stage in a case, of which at least a share will be trained."""
    config = case.config
    by_arm = {run.optimizer: trials[run.environment, run.agent, run.optimizer] for batch in batches for run in batch}
    least = {arm: mean(run_seconds(config, trial, trial.episode_steps) for trial in by_arm[arm]) for arm in by_arm}
    most = {arm: mean(run_seconds(config, trial, trial.longest_episode) for trial in by_arm[arm]) for arm in by_arm}
    every = [trial for of_arm in by_arm.values() for trial in of_arm]
    setup = max(trial.setup_seconds for trial in every)
    runs = sum(map(len, batches))
    low = 0.0 if stage == "extension" else sum(least[run.optimizer] for batch in batches for run in batch) / workers
    low *= share
    high = makespan((setup + sum(most[run.optimizer] for run in batch) for batch in batches), workers)
    played = runs * _episodes(config) * max(trial.longest_episode for trial in every)
    return _row(stage, case.environment, case.agent, (low, high), runs, runs * config.steps, played)


def _baseline_row(environment: str, trials: Trials) -> Row:
    """Return the row of an environment's random and constant policies, which one process evaluates."""
    trial = next(of_arm[0] for (name, *_), of_arm in trials.items() if name == environment)
    episodes = EPISODES * (1 + trial.actions)
    low, high = (episodes * episode_seconds(trial, steps) for steps in (trial.episode_steps, trial.longest_episode))
    return _row("baselines", environment, "", (low, high), evaluation_steps=episodes * trial.longest_episode)


def _row(
    stage: str,
    environment: str,
    agent: str,
    seconds: tuple[float, float],
    runs: int = 0,
    env_steps: int = 0,
    evaluation_steps: int = 0,
) -> Row:
    names = {"stage": stage, "environment": environment, "agent": agent, "runs": runs}
    steps = {"env_steps": env_steps, "evaluation_steps": evaluation_steps}
    return {**names, **steps, "minutes_from": seconds[0] / 60, "minutes_to": seconds[1] / 60}


def _endless(trials: Trials) -> dict[str, int]:
    """Return the longest episode that was seen in each environment without a time limit."""
    longest: dict[str, int] = {}
    for (environment, *_), of_arm in trials.items():
        seen = [trial.longest_episode for trial in of_arm if not trial.has_time_limit]
        if seen:
            longest[environment] = max(seen + [longest.get(environment, 0)])
    return longest


def _episodes(config: TrainConfig) -> int:
    """Return the number of episodes that evaluate a run."""
    settings = config.evaluation
    return settings.episodes * (settings.points + 1) * (1 + settings.greedy) + 2 * settings.final_episodes
