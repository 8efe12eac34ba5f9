"""Optimizers for populations: pure functions on stacked parameters, every hyperparameter one per member if wished.

>>> import torch
>>> from pgkit.optim import apply_updates, make
>>> params = {"w": torch.ones(3, 4)}  # three members with four parameters each
>>> optimizer = make("adam", lr=[0.1, 0.2, 0.3])
>>> state = optimizer.init(params)
>>> updates, state = optimizer.update({"w": params["w"] * 2}, state, params)
>>> apply_updates(params, updates)["w"][:, 0]
tensor([0.9000, 0.8000, 0.7000])
"""

from pgkit.optim.base import Optimizer, Schedule, Transform
from pgkit.optim.chain import chain
from pgkit.optim.diagnostics import diagnostics, measure, snapshot
from pgkit.optim.from_config import describe, from_settings
from pgkit.optim.natural_gradient import fisher_vector_product
from pgkit.optim.partition import by_member, by_name, matches
from pgkit.optim.registry import OptimizerSpec, make, recipes, register
from pgkit.optim.torch_adapter import from_torch
from pgkit.optim.update import apply_updates
from pgkit.tree import put_tree, take_tree

__all__ = [
    "Optimizer",
    "OptimizerSpec",
    "Schedule",
    "Transform",
    "apply_updates",
    "by_member",
    "by_name",
    "chain",
    "describe",
    "diagnostics",
    "fisher_vector_product",
    "from_settings",
    "from_torch",
    "make",
    "matches",
    "measure",
    "put_tree",
    "recipes",
    "register",
    "snapshot",
    "take_tree",
]
