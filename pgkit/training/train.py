"""The training loop: one, for every agent, optimizer and population size."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

from pgkit.config.device import resolve_device
from pgkit.config.schema import TrainConfig
from pgkit.errors import PgkitError
from pgkit.runs.directory import check_run_directory, new_run
from pgkit.system.cpu import available_cpus
from pgkit.training.coordinator import Coordinator
from pgkit.training.loop import retire, run
from pgkit.training.monitor import Channel, Monitor
from pgkit.training.population import Population, build, build_again
from pgkit.training.result import TrainResult
from pgkit.training.workers import WorkerTask, cut, prepare


def train(
    configs: Sequence[TrainConfig],
    directory: Path | None = None,
    progress: bool = False,
    overwrite: bool = False,
    on_steps: Callable[[float], None] | None = None,
    debug_numerics: bool = False,
    workers: int = 1,
) -> TrainResult:
    """Train one member for each configuration, all at once; each gets the bits that it would get alone.

    Args:
        configs: P of them, which may differ in seed, optimizer and the agent's real numbers;
            see :func:`pgkit.config.members.expand_seeds` for the seeds of one configuration.
        directory: where the run is recorded; None records nothing.
        progress: show a progress bar.
        overwrite: replace a run that is already there.
        on_steps: called with the environment steps of all members so far, now and then.
        debug_numerics: stop at the first number that is not finite, at about twice the cost.
        workers: processes that train a slice of the members each. With more than one, a script that calls this needs
            ``if __name__ == "__main__":``, as always with processes in Python.

    Raises:
        PgkitError: the configurations do not fit together, or cannot run here.
        Stopped: Ctrl-C or SIGTERM while a run is recorded; :func:`pgkit.training.resume.resume` continues it.
        BadNumber: ``debug_numerics``, and there was one.
        WorkerDied: a worker was killed.
    """
    if directory is not None:
        check_run_directory(directory, overwrite)
    pieces = cut(configs, workers)
    if len(pieces) > 1 and (reason := why_one_worker(configs[0])):
        raise PgkitError(f"workers = {workers}: {reason}, so only 1 is possible")
    jobs = [WorkerTask(piece, directory is not None, debug_numerics) for piece in pieces]
    with (
        prepare(jobs, PopulationWorker) as slices,
        nullcontext() if directory is None else new_run(directory, overwrite),
        Coordinator(configs, [len(piece) for piece in pieces], directory, slices.inexact, progress, on_steps) as whole,
    ):
        return whole.finish(slices.train(whole))


LEAST_MEMBERS = 8
"""Of a worker: a process takes as long to start as a few short runs to train."""


def default_workers(config: TrainConfig) -> int:
    """As many as cores, where several are possible and each has members enough to be worth a process."""
    worth = len(config.seed_list) // LEAST_MEMBERS
    return 1 if why_one_worker(config) else max(1, min(worth, available_cpus()))


def why_one_worker(config: TrainConfig) -> str | None:
    """Why all members have to be trained in one process, if so."""
    if resolve_device(config.device).type != "cpu":
        return "a GPU trains all members at once"
    if config.env.vectorization == "async":
        return "environments have processes of their own (env.vectorization)"
    return None


class PopulationWorker:
    """Members of a run that are one population, new or from a checkpoint.

    Raises:
        PgkitError: the configurations do not fit together, or cannot run here or not go on.
    """

    def __init__(self, job: WorkerTask) -> None:
        self._job, saved = job, job.saved
        again = saved and build_again(job.configs, saved["parts"], job.restart_count)
        self._parts: list[Population] = again or [build(job.configs)]
        envs = self._parts[-1].collector.envs
        self.inexact = envs.resume_problem() if job.recorded and saved is None else job.inexact

    def train(self, outlet: Channel) -> TrainResult:
        """Train until every member has left."""
        job = self._job
        seen = job.saved and job.saved["observer"]
        with Monitor(self._parts, job.configs, outlet, self.inexact is None, seen) as monitor:
            return run(retire(self._parts[-1], monitor), monitor, job.debug_numerics)

    def close(self) -> None:
        """Free the environments."""
        self._parts[-1].collector.envs.close()
