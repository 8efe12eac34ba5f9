"""Adapt any ``torch.optim.Optimizer`` class, element-wise or not, with one instance for each member.

An instance sees its member's parameters as ``torch.nn`` would hold them, since some optimizers treat matrices and
vectors differently: weights ``(out, in)``, biases ``(out,)``. They are views of stacked working copies, so that the
parameters themselves are never written into.
"""

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import ExtraArgs, Hyperparameter, Optimizer, Schedule, State, StepResult, checked_grads
from pgkit.optim.hyperparameters import (
    init_hyperparameters,
    members_and_device,
    next_hyperparameters,
    required_by,
)
from pgkit.optim.update import finish
from pgkit.optim.validation import PerMember, check_keys, numbers_of, suggest
from pgkit.tree import take_tree
from pgkit.types import Params

OptimizerClass = Callable[..., torch.optim.Optimizer]


def from_torch(name: str | type[torch.optim.Optimizer], /, **options: Any) -> Optimizer:
    """Adapt a ``torch.optim.Optimizer`` class.

    >>> import torch
    >>> from pgkit.optim import from_torch
    >>> optimizer = from_torch("torch.optim:SGD", lr=torch.tensor([0.5, 0.25]))
    >>> params = {"w": torch.zeros(2, 3)}
    >>> optimizer.update({"w": torch.ones(2, 3)}, optimizer.init(params), params)[0]["w"][:, 0]
    tensor([-0.5000, -0.2500])

    Args:
        name: ``"package.module:Class"``, or the class.
        options: its keyword arguments; a tensor ``(P,)`` has one number per member, and a number may be a schedule.

    Raises:
        PgkitError: no such class, an unknown or missing option, or an optimizer that needs a closure.
    """
    optimizer_class = find_class(name) if isinstance(name, str) else _checked(name.__name__, name)
    defaults = _defaults(optimizer_class)
    label = name if isinstance(name, str) else name.__name__
    check_keys(f"optimizer {label!r}", options, defaults)
    return _adapted(label, optimizer_class, {**defaults, **options})


def torch_spec(name: str) -> tuple[Callable[..., Optimizer], str, str, dict[str, Any]]:
    """Describe ``"package.module:Class"`` for the registry: build, formula, source and defaults."""
    optimizer_class = find_class(name)
    summary = (inspect.getdoc(optimizer_class) or "").strip().partition("\n\n")[0]
    defaults = _defaults(optimizer_class)
    mandatory = {key for key, value in defaults.items() if value is inspect.Parameter.empty}
    plain = {key: None if key in mandatory else value for key, value in defaults.items() if _is_plain(value)}

    def build(**options: Any) -> Optimizer:
        stated = {key: value for key, value in options.items() if key not in mandatory or value is not None}
        return from_torch(name, **stated)

    return build, " ".join(summary.split()), name.replace(":", "."), plain


def find_class(name: str) -> type[torch.optim.Optimizer]:
    """Import the class ``"package.module:Class"``, also from modules in the working directory.

    Raises:
        PgkitError: there is no such class, it is no optimizer, or it needs a closure.
    """
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise PgkitError(f"optimizer {name!r}: expected 'package.module:Class'")
    working_directory = os.getcwd()
    sys.path.append(working_directory)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # importing runs the module's code, which may raise anything
        raise PgkitError(f"optimizer {name!r}: cannot import {module_name!r} ({error})") from None
    finally:
        sys.path.remove(working_directory)
    if not hasattr(module, class_name):
        hint = suggest(class_name, [key for key in vars(module) if key[:1].isupper()])
        raise PgkitError(f"optimizer {name!r}: {module_name} has no {class_name!r}{hint}")
    return _checked(name, getattr(module, class_name))


def _checked(name: str, value: Any) -> type[torch.optim.Optimizer]:
    """Return ``value`` if it is an optimizer class that can step without a closure."""
    if not (inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)):
        raise PgkitError(f"optimizer {name!r} is no subclass of torch.optim.Optimizer")
    closure = inspect.signature(value.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise PgkitError(f"optimizer {name!r} needs a closure that evaluates the loss again, which pgkit cannot offer")
    return value


def _adapted(name: str, optimizer_class: OptimizerClass, options: Mapping[str, Any]) -> Optimizer:
    missing = [key for key, value in options.items() if value is inspect.Parameter.empty]
    if missing:
        raise PgkitError(f"optimizer {name!r} needs the key {missing[0]!r}")
    hyperparameters: dict[str, Hyperparameter] = {
        key: value for key, value in options.items() if _is_hyperparameter(value)
    }
    scheduled = [key for key, value in hyperparameters.items() if isinstance(value, Schedule)]
    adapter = _Adapter(name, optimizer_class, options, hyperparameters, scheduled)
    requires = required_by(hyperparameters)
    return Optimizer(adapter.init, adapter.step, adapter.take, _dump, adapter.load, requires=requires)


@dataclass(frozen=True)
class _Adapter:
    """The functions of an adapted optimizer.

    State: ``"hyperparameters"`` and ``"schedules"`` as in a chain; ``"options"`` and ``"instances"``, one per member;
    ``"work"``, the copies of the parameters that the instances write into.
    """

    name: str
    optimizer_class: OptimizerClass
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, Hyperparameter]
    scheduled: Sequence[str]

    def init(self, params: Params) -> State:
        members, device = members_and_device(params)
        options_by_member = [
            {key: _option_of(key, value, k, members) for key, value in self.options.items()} for k in range(members)
        ]
        self._try(options_by_member[0], take_tree(params, torch.zeros(1, dtype=torch.int64)))
        state = init_hyperparameters(self.hyperparameters, members, device)
        state |= {"member_state": {}, "metrics": {}, "leaf_state": {}, "options": options_by_member}
        return self._with_instances(state, _as_torch(params))

    def step(self, grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        updates = checked_grads(grads, params)
        torch_grads = _as_torch(updates)
        work = state["work"]
        for leaf, start in zip(work.values(), _as_torch(params).values(), strict=True):
            leaf.copy_(start)
        hyper = next_hyperparameters(self.hyperparameters, state, extra_args)
        scheduled_values = {key: hyper[key].tolist() for key in self.scheduled}
        for k, instance in enumerate(state["instances"]):
            for group in instance.param_groups:
                group.update({key: values[k] for key, values in scheduled_values.items()})
                for leaf, grad in zip(group["params"], torch_grads.values(), strict=True):
                    leaf.grad = grad[k]
            with torch.enable_grad():
                instance.step()
        for key, leaf in _from_torch(work, params).items():
            torch.sub(leaf, params[key], out=updates[key])
        return finish(updates, {**state, "hyperparameters": hyper}, params, add)

    def take(self, state: State, members: Tensor) -> State:
        rows = members.tolist()
        stacked = {key: value for key, value in state.items() if key not in ("instances", "work", "options")}
        taken = {**take_tree(stacked, members), "options": [state["options"][k] for k in rows]}
        saved = [state["instances"][k].state_dict() for k in rows]
        return _load_instances(self._with_instances(taken, take_tree(state["work"], members)), saved)

    def load(self, data: Any, params: Params) -> State:
        return _load_instances(self._with_instances(data, _as_torch(params)), data["instances"])

    def _with_instances(self, state: State, work: Params) -> State:
        """Add to a state the working copies, and an instance for each member."""
        instances = [self._instance(options, work, k) for k, options in enumerate(state["options"])]
        return {**state, "work": work, "instances": instances}

    def _instance(self, options: Mapping[str, Any], work: Params, k: int) -> Any:
        """Make the instance of member k over views of the working copies."""
        try:
            return self.optimizer_class([torch.nn.Parameter(leaf[k]) for leaf in work.values()], **options)
        except Exception as error:
            raise PgkitError(f"optimizer {self.name!r}: {error}") from error

    def _try(self, options: Mapping[str, Any], params: Params) -> None:
        """Make one step of a throw-away instance, so that what cannot work fails before training."""
        instance = self._instance(options, _as_torch(params), 0)
        missing = [key for key in self.scheduled if key not in instance.param_groups[0]]
        if missing:
            raise PgkitError(
                f"optimizer {self.name!r}: {missing[0]} cannot have a schedule, "
                "because it is no option of its parameter groups"
            )
        for leaf in instance.param_groups[0]["params"]:
            leaf.grad = torch.ones_like(leaf)
        with torch.random.fork_rng(devices=[]):
            try:
                instance.step()
            except Exception as error:
                reason = error or type(error).__name__
                raise PgkitError(f"optimizer {self.name!r} cannot make a step: {reason}") from error


def _dump(state: State) -> Any:
    plain = {key: value for key, value in state.items() if key not in ("instances", "work")}
    return {**plain, "instances": [copy.deepcopy(instance.state_dict()) for instance in state["instances"]]}


def _load_instances(state: State, saved: Sequence[Mapping[str, Any]]) -> State:
    """Load copies of state dicts into the instances of a state."""
    for instance, state_dict in zip(state["instances"], saved, strict=True):
        instance.load_state_dict(copy.deepcopy(dict(state_dict)))
    return state


def _as_torch(params: Params) -> Params:
    """Copy leaves as ``torch.nn`` would shape them: weights ``(P, out, in)``, biases ``(P, out)``."""
    copies = {}
    for name, leaf in params.items():
        if leaf.dim() == 3:
            leaf = leaf.squeeze(1) if leaf.shape[1] == 1 and not name.endswith("weight") else leaf.mT
        copies[name] = leaf.detach().clone(memory_format=torch.contiguous_format)
    return copies


def _from_torch(work: Params, params: Params) -> Params:
    """View such copies in the shape of the parameters."""
    return {
        name: leaf if params[name].dim() != 3 else leaf.unsqueeze(1) if leaf.dim() == 2 else leaf.mT
        for name, leaf in work.items()
    }


def _defaults(optimizer_class: OptimizerClass) -> dict[str, Any]:
    """List the keyword arguments of a class with their defaults."""
    parameters = list(inspect.signature(optimizer_class).parameters.values())[1:]
    return {p.name: p.default for p in parameters if not str(p).startswith("*")}  # neither *args nor **kwargs


def _is_plain(value: Any) -> bool:
    """Whether a default can be written into a config."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or value is inspect.Parameter.empty or isinstance(value, str | bool | int | float)


def _is_hyperparameter(value: Any) -> bool:
    """Whether this is one number, or one per member, as against a flag or a list such as betas."""
    numbers = value if isinstance(value, PerMember) else [value]
    return all(isinstance(n, Schedule | Tensor | int | float) and not isinstance(n, bool) for n in numbers)


def _option_of(key: str, value: Any, k: int, members: int) -> Any:
    """Return the option of member k; a plain list is one value, such as betas."""
    if isinstance(value, Schedule):
        value = value.start
    if not isinstance(value, PerMember | Tensor):
        return tuple(value) if isinstance(value, list) else value
    values = value if isinstance(value, PerMember) else numbers_of(key, value)
    if len(values) not in (1, members):
        raise PgkitError(f"{key} has {len(values)} values for {members} members; give one, or one per member")
    return values[k % len(values)]
