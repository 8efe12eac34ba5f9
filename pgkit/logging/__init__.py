"""What a run logs: TensorBoard event files and ``metrics.parquet``.

In come rows of numbers by tag, out go files. :class:`~pgkit.logging.logger.Logger` writes both formats: start reading
at its method ``log``. ``tensorboard`` writes event files, ``summary`` those with the median and spread of a population,
and ``parquet`` writes the table.

Every tag is listed in ``metrics``, with definition and unit; others are refused. To log something new, add its row
there, and paste what ``python -m pgkit.logging`` prints into this package's README.

>>> from pgkit.logging import METRICS
>>> METRICS[0].tag
'train/episode_return'
"""

from pgkit.logging.logger import Logger
from pgkit.logging.metrics import METRICS, Metric
from pgkit.logging.parquet import read_metrics

__all__ = ["METRICS", "Logger", "Metric", "read_metrics"]
