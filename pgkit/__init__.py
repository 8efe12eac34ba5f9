"""pgkit: policy gradients with pluggable optimizers, whole populations at once.

>>> import pgkit
>>> config = pgkit.load_config("cartpole-actor-critic", {"steps": 2_000, "seeds": 2})
>>> result = pgkit.train(config)
>>> len(result.table)
2

The public names are listed in ``__init__.pyi`` and imported when they are first used, so ``import pgkit`` is light.

Import pgkit before torch multiplies its first matrix: it asks MKL, which reads this setting only once and which makes
the orthogonal initial weights, for the same bits wherever in memory a matrix lies (strict conditional numerical
reproducibility).
"""

import os
from pathlib import Path
from typing import Any

import lazy_loader

# In a checkout agents/ and configs/ lie beside this folder. Whoever works there may have pgkit installed as a copy,
# which this folder hides, so that nothing but this line leads to them.
if not Path(__file__).with_name("configs").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

_load_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_RENAMED = {
    "EvaluationResult": "pgkit.training.evaluate_run.EvaluationResult",
    "head_for": "pgkit.nn.distributions.head_for",
    "make_envs": "pgkit.envs.make_envs",
    "members": "pgkit.expand_seeds",
    "parse_config": "pgkit.config.load.parse_config",
    "play": "pgkit.rollouts.evaluate.evaluate_policy",
    "to_toml": "pgkit.config.load.to_toml",
}
"""Public names of earlier versions, and what they are now."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from pgkit.system.renamed import renamed

        raise renamed(__name__, name, _RENAMED[name])
    return _load_name(name)
