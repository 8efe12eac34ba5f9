"""Train members: check the arguments, split the members among workers, and let the coordinator write what they send."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pgkit.config.device import resolve_device
from pgkit.config.members import expand_seeds
from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.envs.make import resume_problem
from pgkit.errors import PgkitError, format_value
from pgkit.runs.directory import as_directory, check_run_directory, new_run
from pgkit.system.cpu import available_cpus
from pgkit.system.process_state import isolated_process
from pgkit.training.coordinator import Coordinator
from pgkit.training.evaluator import open_evaluation_envs
from pgkit.training.initial_state import split_initial
from pgkit.training.loop import retire, run
from pgkit.training.messages import Channel
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, build, rebuild
from pgkit.training.read_initial import read_initial
from pgkit.training.result import TrainResult
from pgkit.training.worker_process import WorkerTask
from pgkit.training.workers import split, start_workers

MIN_MEMBERS_PER_WORKER = 8
"""A process takes as long to start as a few short runs take to train."""


def train(
    config: TrainConfig | Sequence[TrainConfig],
    directory: str | Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
    on_steps: Callable[[float], None] | None = None,
    debug_numerics: bool = False,
    workers: int = 1,
) -> TrainResult:
    """Train one member for each seed of a configuration, all at once.

    On CPU each member has the same bits as trained alone.

    >>> import pgkit
    >>> result = pgkit.train(pgkit.load_config("cartpole-actor-critic", ["steps=2000", "seeds=2"]))
    >>> len(result.table)
    2

    Args:
        config: a configuration, or several, which may differ in seeds, optimizer and the agent's real numbers.
        directory: where the run is recorded; None records nothing.
        progress: whether to show a progress bar.
        overwrite: whether to replace a run that is already in ``directory``.
        on_steps: called now and then with the environment steps of all members so far.
        debug_numerics: whether to stop at the first number that is not finite; training takes about twice as long.
        workers: how many processes share the members. With more than one, a script that calls this needs
            ``if __name__ == "__main__":``, as always with processes in Python.

    Raises:
        PgkitError: an argument is wrong, the configurations do not fit together, or they cannot run on this machine.
        Stopped: Ctrl-C or SIGTERM while a run is recorded; :func:`pgkit.resume` continues it.
        BadNumber: with ``debug_numerics``, a number is not finite.
        WorkerDied: a worker process died.
    """
    configs = member_configs(config)
    place = None if directory is None else as_directory(directory)
    if on_steps is not None and not callable(on_steps):
        raise PgkitError(f"on_steps must be a function of the steps so far, or None, got {format_value(on_steps)}")
    if type(workers) is not int or workers < 1:
        raise PgkitError(f"workers must be a whole number of at least 1, got {format_value(workers)}")
    if place is not None:
        check_run_directory(place, overwrite)
    groups = split(configs, workers)
    if len(groups) > 1 and (reason := why_one_worker(configs[0])):
        raise PgkitError(f"workers = {workers}: {reason}, so only 1 is possible")
    sizes = [len(group) for group in groups]
    inexact = None if place is None else _resume_problem(configs[0])
    initial, source = read_initial(configs)
    tasks = [
        WorkerTask(group, place is not None, debug_numerics, inexact=inexact, initial=rows)
        for group, rows in zip(groups, split_initial(initial, sizes), strict=True)
    ]
    with (
        isolated_process(),
        start_workers(tasks, PopulationWorker) as started,
        nullcontext() if place is None else new_run(place, overwrite),
        Coordinator(configs, sizes, place, inexact, progress, on_steps, init_source=source) as coordinator,
    ):
        return coordinator.finish(started.train(coordinator))


def _resume_problem(config: TrainConfig) -> str | None:
    """Why a run cannot be resumed exactly; None if it can."""
    env = config.env
    return resume_problem(
        env.id,
        kwargs=env.kwargs,
        max_episode_steps=env.max_episode_steps,
        backend=env.backend,
        vectorization=env.vectorization,
        timeout=env.timeout,
        wrappers=env.wrappers,
    )


def member_configs(config: TrainConfig | Sequence[TrainConfig]) -> list[TrainConfig]:
    """One configuration for each member: those given, with their seeds expanded.

    Raises:
        PgkitError: something else was given.
    """
    entries: Sequence[Any] = list(config) if isinstance(config, list | tuple) else [config]
    for entry in entries:
        if not isinstance(entry, TrainConfig):
            raise PgkitError(
                f"config must be a TrainConfig (pgkit.load_config returns one) or a list of them, got {_shown(entry)}"
            )
    return [member for entry in entries for member in expand_seeds(entry)]


def _shown(value: object) -> str:
    """A wrong argument in a few words: a text itself, of anything else the type."""
    return format_value(value) if isinstance(value, str) else type(value).__name__


def default_workers(config: TrainConfig) -> int:
    """One worker for each usable core, as far as several are possible and each has enough members."""
    worthwhile = len(config.seed_list) // MIN_MEMBERS_PER_WORKER
    return 1 if why_one_worker(config) else max(1, min(worthwhile, available_cpus()))


def why_one_worker(config: TrainConfig) -> str | None:
    """Why all members have to be trained in one process; None if they need not."""
    if resolve_device(config.device).type != "cpu":
        return "a GPU trains all members at once"
    if config.env.vectorization == "async":
        return "the environments run in processes already (env.vectorization)"
    return None


class PopulationWorker:
    """A worker whose members are one population, new or from a checkpoint.

    Args:
        task: what to train.

    Raises:
        PgkitError: the configurations do not fit together, cannot run on this machine, or cannot be resumed.
    """

    def __init__(self, task: WorkerTask) -> None:
        self._task = task
        self._parts: list[Population]
        if task.saved is None:
            self._parts = [build(task.configs, initial=task.initial)]
        else:
            self._parts = rebuild(task.configs, task.saved["parts"], task.restart_count)
        try:
            self._evaluation_envs: Environments | None = open_evaluation_envs(self._parts[-1], task.configs)
        except PgkitError:
            self._parts[-1].collector.envs.close()
            raise

    def train(self, channel: Channel) -> TrainResult:
        """Train until every member has left."""
        task = self._task
        saved = None if task.saved is None else task.saved["monitor"]
        evaluation_envs = self._evaluation_envs
        self._evaluation_envs = None
        with Monitor(self._parts, task.configs, channel, task.inexact is None, saved, evaluation_envs) as monitor:
            return run(retire(self._parts[-1], monitor), monitor, task.debug_numerics)

    def close(self) -> None:
        """Free the environments."""
        training_envs = self._parts[-1].collector.envs
        if self._evaluation_envs is not None and self._evaluation_envs is not training_envs:
            self._evaluation_envs.close()
        training_envs.close()
