"""Train members: check the arguments, split the members among workers, and let the coordinator write what they send."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from pgkit.callbacks.protocol import watch_of
from pgkit.config.schema import TrainConfig
from pgkit.envs.base import Environments
from pgkit.errors import PgkitError
from pgkit.runs.directory import as_directory, check_run_directory, new_run
from pgkit.system.process_state import isolated_process
from pgkit.training.arguments import check_arguments, member_configs, why_inexact, why_one_worker
from pgkit.training.coordinator import Coordinator
from pgkit.training.evaluator import open_evaluation_envs
from pgkit.training.initial_state import split_initial
from pgkit.training.loop import retire, run, run_until
from pgkit.training.make_callbacks import make_callbacks
from pgkit.training.messages import Channel, StateSaved
from pgkit.training.monitor import Monitor
from pgkit.training.population import Population, build, rebuild
from pgkit.training.read_initial import read_initial
from pgkit.training.result import TrainResult
from pgkit.training.worker_process import WorkerTask
from pgkit.training.workers import split, start_workers


def train(
    config: TrainConfig | Sequence[TrainConfig],
    directory: str | Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
    on_steps: Callable[[float], None] | None = None,
    debug_numerics: bool = False,
    workers: int = 1,
    callbacks: Sequence[object] = (),
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
        workers: how many processes share the members; with several, a script needs ``if __name__ == "__main__":``.
        callbacks: see what happens and may stop the run, beside those of the configuration: :mod:`pgkit.callbacks`.

    Raises:
        PgkitError: an argument is wrong, the configurations do not fit together, or they cannot run on this machine.
        Stopped: Ctrl-C or SIGTERM while a run is recorded; :func:`pgkit.resume` continues it.
        BadNumber: with ``debug_numerics``, a number is not finite.
        WorkerDied: a worker process died.
        CallbackError: a callback has failed.
    """
    configs = member_configs(config)
    place = None if directory is None else as_directory(directory)
    check_arguments(on_steps, workers)
    if place is not None:
        check_run_directory(place, overwrite)
    groups = split(configs, workers)
    all_callbacks = make_callbacks(configs[0], callbacks)
    if len(groups) > 1 and (reason := why_one_worker(configs[0])):
        raise PgkitError(f"workers = {workers}: {reason}, so only 1 is possible")
    inexact = None if place is None else why_inexact(configs[0])
    watch = watch_of(all_callbacks)
    sizes = [len(group) for group in groups]
    with isolated_process():
        initial, source = read_initial(configs)
    task = partial(WorkerTask, recorded=place is not None, debug_numerics=debug_numerics, inexact=inexact, watch=watch)
    tasks = [task(group, initial=rows) for group, rows in zip(groups, split_initial(initial, sizes), strict=True)]
    with (
        isolated_process(),
        start_workers(tasks, PopulationWorker) as started,
        nullcontext() if place is None else new_run(place, overwrite),
        Coordinator(configs, sizes, place, inexact, progress, on_steps, None, source, all_callbacks) as coordinator,
    ):
        coordinator.start()
        return coordinator.finish(started.train(coordinator))


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
        with self._monitor(channel) as monitor:
            return run(retire(self._parts[-1], monitor), monitor, self._task.debug_numerics)

    def train_until(self, channel: Channel, env_steps: float) -> StateSaved:
        """Train until every member has used so many environment steps, or has left."""
        with self._monitor(channel) as monitor:
            return run_until(retire(self._parts[-1], monitor), monitor, env_steps)

    def _monitor(self, channel: Channel) -> Monitor:
        task = self._task
        saved = None if task.saved is None else task.saved["monitor"]
        evaluation_envs = self._evaluation_envs
        self._evaluation_envs = None
        return Monitor(self._parts, task.configs, channel, task.inexact is None, saved, evaluation_envs)

    def close(self) -> None:
        """Free the environments."""
        training_envs = self._parts[-1].collector.envs
        if self._evaluation_envs is not None and self._evaluation_envs is not training_envs:
            self._evaluation_envs.close()
        training_envs.close()
