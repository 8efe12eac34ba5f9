"""pgkit: policy gradients with pluggable optimizers, whole populations at once.

>>> import pgkit
>>> config = pgkit.load_config("cartpole-actor-critic", ["steps=2000", "seeds=2"])
>>> result = pgkit.train(pgkit.expand_seeds(config))
>>> len(result.table)
2

Names are imported when they are first used, so that ``import pgkit`` is light.

Import it before you compute with matrices in torch: it asks MKL, which makes initial weights orthogonal and reads this
once, for the same bits wherever in memory a matrix lies (strict conditional numerical reproducibility).
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if TYPE_CHECKING:
    from pgkit import losses, optim, returns
    from pgkit.config.load import load_config, parse_config, to_toml
    from pgkit.config.members import expand_seeds
    from pgkit.config.schema import TrainConfig
    from pgkit.envs import make_envs
    from pgkit.errors import PgkitError
    from pgkit.nn.distributions import head_for
    from pgkit.nn.policy import Policy
    from pgkit.rollouts.evaluate import play
    from pgkit.training.evaluate_run import EvaluationResult, evaluate_run
    from pgkit.training.result import TrainResult
    from pgkit.training.resume import resume
    from pgkit.training.train import train
    from pgkit.types import Batch, Params, Rollout

_HOME = {
    "Batch": "types",
    "EvaluationResult": "training.evaluate_run",
    "Params": "types",
    "PgkitError": "errors",
    "Policy": "nn.policy",
    "Rollout": "types",
    "TrainConfig": "config.schema",
    "TrainResult": "training.result",
    "evaluate_run": "training.evaluate_run",
    "head_for": "nn.distributions",
    "load_config": "config.load",
    "make_envs": "envs",
    "expand_seeds": "config.members",
    "parse_config": "config.load",
    "play": "rollouts.evaluate",
    "resume": "training.resume",
    "to_toml": "config.load",
    "train": "training.train",
}
_MODULES = ("losses", "optim", "returns")

__all__ = [
    "Batch",
    "EvaluationResult",
    "Params",
    "PgkitError",
    "Policy",
    "Rollout",
    "TrainConfig",
    "TrainResult",
    "evaluate_run",
    "expand_seeds",
    "head_for",
    "load_config",
    "losses",
    "make_envs",
    "optim",
    "parse_config",
    "play",
    "resume",
    "returns",
    "to_toml",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"pgkit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'pgkit' has no attribute {name!r}")
    return getattr(import_module(f"pgkit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
