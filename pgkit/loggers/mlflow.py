"""MLflow: a run for each member in the tracking store that MLflow's own variables name, or in its default one.

``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME`` count; without the latter the experiment is pgkit.
"""

import os
import time
from collections import Counter
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from pgkit.config.load import flatten, to_table
from pgkit.loggers.logger import MemberRun, Row

ID_TAG = "pgkit.id"
PARAMS_PER_CALL = 100  # the most that MLflow takes
PARAM_LENGTH = 6000  # likewise

STATUS = {"finished": "FINISHED", "stopped": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}


class MlflowRun:
    """A run of MLflow.

    Args:
        client: of the tracking store.
        run_id: of the run.
        resumed: whether the store may hold points of it.
    """

    def __init__(self, client: MlflowClient, run_id: str, resumed: bool) -> None:
        self.rows = 0  # all rows are taken: which points are there already is counted for each tag
        self._client = client
        self._run_id = run_id
        tags = client.get_run(run_id).data.metrics if resumed else ()
        self._points = {tag: len(client.get_metric_history(run_id, tag)) for tag in tags}
        self._counts = Counter[str]()
        self._last_step = 0

    def log(self, row: Row) -> None:
        """Log the points of a row that the store does not have; infinities become the largest double there."""
        now = int(time.time() * 1000)
        self._counts.update(row.values.keys())
        new = {tag: value for tag, value in row.values.items() if self._counts[tag] > self._points.get(tag, 0)}
        self._last_step = max(self._last_step, row.env_steps)
        if new:
            points = [Metric(tag, value, now, row.env_steps) for tag, value in new.items()]
            self._client.log_batch(self._run_id, metrics=points)

    def finish(self, status: str, final: Mapping[str, float]) -> None:
        """Log results, and end the run."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._run_id, [Metric(tag, each, now, self._last_step) for tag, each in final.items()])
        self._client.set_terminated(self._run_id, STATUS[status])


def open_run(member: MemberRun) -> MlflowRun:
    """Open the run of a member, by its id."""
    client = MlflowClient()
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "pgkit")
    experiment = client.get_experiment_by_name(name)
    place = experiment.experiment_id if experiment else client.create_experiment(name)
    runs = client.search_runs([place], f"tags.`{ID_TAG}` = '{member.id}'") if member.resumed else []
    if runs:
        client.update_run(runs[0].info.run_id, status="RUNNING")
        return MlflowRun(client, runs[0].info.run_id, resumed=True)
    tags = {ID_TAG: member.id, "group": member.config.name}
    run_id = client.create_run(place, run_name=member.name, tags=tags).info.run_id
    settings = flatten(to_table(member.config)).items()
    params = [Param(key, str(value)[:PARAM_LENGTH]) for key, value in settings]
    for begin in range(0, len(params), PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[begin : begin + PARAMS_PER_CALL])
    return MlflowRun(client, run_id, resumed=False)
