"""Where else a run is logged: W&B, MLflow, Trackio, CSV, beside TensorBoard and ``metrics.parquet``.

- ``logger``: the callback that opens a run for each member, numbers rows, and leaves out what is logged already. Start
  reading there.
- ``wandb``, ``mlflow``, ``trackio``, ``csv``: one outlet each, imported only if a configuration names it.
- ``make``: loggers from their names in a configuration.

The README of this package says where the files are, and what a resumed run does.
"""

from pgkit.loggers.logger import MemberLogger, MemberRun, OpenRun, Row
from pgkit.loggers.make import make_logger

__all__ = ["MemberLogger", "MemberRun", "OpenRun", "Row", "make_logger"]
