"""Optimizers for populations: pure functions on stacked parameters, as in optax.

>>> import torch
>>> from pgkit.optim import apply_updates, make
>>> params = {"w": torch.ones(3, 4)}  # three members with four parameters each
>>> optimizer = make("adam", lr=[0.1, 0.2, 0.3])
>>> state = optimizer.init(params)
>>> updates, state = optimizer.update({"w": params["w"] * 2}, state, params)
>>> apply_updates(params, updates)["w"][:, 0]
tensor([0.9000, 0.8000, 0.7000])

In: gradients, a state and parameters, leaves ``(P, ...)`` by name; hyperparameters, each one number, one per member, or
a schedule. Out: updates to be added, and the next state. ``update`` overwrites nothing unless ``donate=True``.

Where to start: ``optimizers`` has the named optimizers, each a chain beside its formula; ``base`` says what an
optimizer and a transform are. Then ``transforms`` and ``scaling`` (the pieces), ``chain`` (joins them), ``partition``
(by member, by parameter name), ``update`` (adds updates), ``schedule_free``, ``schedules``, ``registry`` (by name) and
``from_config`` (by config table). ``natural_gradient`` and ``torch_adapter`` are optimizers that are no chains.
``torch_optimizer`` and ``torch_layout`` are for loops and modules of PyTorch. ``fused``, ``reductions`` and ``codegen``
run chains as compiled loops: nobody who adds an optimizer needs to touch them.

To add an optimizer: a function in ``optimizers`` (or your own code, with ``register``) whose docstring is its formula
and source. ``README.md`` shows how, with tables of all optimizers, what "lr" means in each, and how they compare.
"""

from typing import Any

from pgkit.optim.base import Optimizer, Schedule, StepResult, Transform
from pgkit.optim.chain import chain
from pgkit.optim.diagnostics import diagnostics, measure
from pgkit.optim.from_config import describe, from_config, groups_of
from pgkit.optim.natural_gradient import fisher_vector_product
from pgkit.optim.partition import by_member, by_name, matches
from pgkit.optim.registry import OptimizerSpec, list_optimizers, make, register, spec
from pgkit.optim.torch_adapter import from_torch
from pgkit.optim.torch_layout import module_state, stack_modules
from pgkit.optim.torch_optimizer import as_torch
from pgkit.optim.update import add_updates, apply_updates
from pgkit.tree import put_tree, take_tree

__all__ = [
    "Optimizer",
    "OptimizerSpec",
    "Schedule",
    "StepResult",
    "Transform",
    "add_updates",
    "apply_updates",
    "as_torch",
    "by_member",
    "by_name",
    "chain",
    "describe",
    "diagnostics",
    "fisher_vector_product",
    "from_config",
    "from_torch",
    "groups_of",
    "list_optimizers",
    "make",
    "matches",
    "measure",
    "module_state",
    "put_tree",
    "register",
    "spec",
    "stack_modules",
    "take_tree",
]

_RENAMED = {
    "Recipe": "OptimizerSpec",
    "from_settings": "from_config",
    "recipes": "list_optimizers and pgkit.optim.spec",
}
"""Public names of earlier versions, and what they are now."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from pgkit.system.renamed import renamed

        raise renamed(__name__, name, f"{__name__}.{_RENAMED[name]}")
    raise AttributeError(f"module 'pgkit.optim' has no attribute {name!r}")
