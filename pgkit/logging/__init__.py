"""What a run writes while it trains: TensorBoard events and ``metrics.parquet``."""

from pgkit.logging.logger import Recorder
from pgkit.logging.metrics import METRICS, Metric
from pgkit.logging.parquet import read_metrics

__all__ = ["METRICS", "Metric", "Recorder", "read_metrics"]
