from . import callbacks, compare, diagnose, envs, losses, optim, plots, pretrained, returns, stats, tune
from .config.load import load_config
from .config.members import expand_seeds
from .config.schema import TrainConfig
from .deploy.load import load
from .deploy.policy import TrainedPolicy
from .errors import PgkitError
from .nn.policy import Policy
from .training.evaluate_run import evaluate_run
from .training.result import TrainResult
from .training.resume import resume
from .training.train import train
from .types import Batch, Params, Rollout

__all__ = [
    "Batch",
    "Params",
    "PgkitError",
    "Policy",
    "Rollout",
    "TrainConfig",
    "TrainResult",
    "TrainedPolicy",
    "callbacks",
    "compare",
    "diagnose",
    "envs",
    "evaluate_run",
    "expand_seeds",
    "load",
    "load_config",
    "losses",
    "optim",
    "plots",
    "pretrained",
    "resume",
    "returns",
    "stats",
    "train",
    "tune",
]
