"""Anyone's optimizer: adapts ``torch.optim.Optimizer`` classes, element-wise or not, one instance for each member.

An instance sees its member's parameters as ``torch.nn`` would hold them, since some optimizers care: weights
``(out, in)``, biases ``(out,)``. They are views of stacked working copies, so that the parameters themselves are never
written into.
"""

import copy
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim.base import Hyperparameter, Optimizer, Schedule, State, own
from pgkit.optim.chain import first_hyper, needs_of, next_hyper, population
from pgkit.optim.validation import PerMember, check_keys, numbers_of, suggest
from pgkit.tree import take_tree
from pgkit.types import Params

OptimizerClass = Callable[..., torch.optim.Optimizer]


def from_torch(name: str | type[torch.optim.Optimizer], **options: Any) -> Optimizer:
    """Adapt a ``torch.optim.Optimizer``.

    Args:
        name: ``"package.module:Class"``, or the class.
        options: its keyword arguments; a tensor ``(P,)`` gives each member its own number, and a number may be a
            schedule.

    Raises:
        PgkitError: no such class, an unknown or missing option, or an optimizer that needs a closure.
    """
    found = find_class(name) if isinstance(name, str) else _checked(name.__name__, name)
    defaults = _defaults(found)
    check_keys(f"optimizer {_label(name)!r}", options, defaults)
    return _adapted(_label(name), found, {**defaults, **options})


def foreign_recipe(name: str) -> tuple[Callable[..., Optimizer], str, str, dict[str, Any]]:
    """What the registry wants to know of ``"package.module:Class"``: build, formula, source and defaults."""
    found = find_class(name)
    summary = (inspect.getdoc(found) or "").strip().partition("\n\n")[0]
    defaults = _defaults(found)
    needed = {key for key, value in defaults.items() if value is inspect.Parameter.empty}
    plain = {key: None if key in needed else value for key, value in defaults.items() if _is_plain(value)}

    def build(**options: Any) -> Optimizer:
        return from_torch(
            name, **{key: value for key, value in options.items() if key not in needed or value is not None}
        )

    return build, " ".join(summary.split()), name.replace(":", "."), plain


def find_class(name: str) -> type[torch.optim.Optimizer]:
    """The class ``"package.module:Class"``; modules in the working directory count."""
    module_name, _, class_name = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise PgkitError(f"optimizer {name!r}: expected 'package.module:Class'")
    here = os.getcwd()
    sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever the module does
        raise PgkitError(f"optimizer {name!r}: cannot import {module_name!r} ({error})") from None
    finally:
        sys.path.remove(here)
    if not hasattr(module, class_name):
        hint = suggest(class_name, [key for key in vars(module) if key[:1].isupper()])
        raise PgkitError(f"optimizer {name!r}: {module_name} has no {class_name!r}{hint}")
    return _checked(name, getattr(module, class_name))


def _checked(name: str, found: Any) -> type[torch.optim.Optimizer]:
    if not (inspect.isclass(found) and issubclass(found, torch.optim.Optimizer)):
        raise PgkitError(f"optimizer {name!r} is no subclass of torch.optim.Optimizer")
    closure = inspect.signature(found.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise PgkitError(f"optimizer {name!r} needs a closure that evaluates the loss again; pgkit cannot offer one")
    return found


def _adapted(name: str, found: OptimizerClass, options: Mapping[str, Any]) -> Optimizer:
    """State: ``"hyper"`` and ``"schedules"`` as in a chain, ``"options"`` and ``"instances"`` by member, ``"work"``."""
    missing = [key for key, value in options.items() if value is inspect.Parameter.empty]
    if missing:
        raise PgkitError(f"optimizer {name!r} needs the key {missing[0]!r}")
    hyper: dict[str, Hyperparameter] = {key: value for key, value in options.items() if _is_hyper(value)}
    schedules = [key for key, value in hyper.items() if isinstance(value, Schedule)]

    def init(params: Params) -> State:
        members, device = population(params)
        state = first_hyper(hyper, members, device)
        own_options = [
            {key: _of_member(key, value, k, members) for key, value in options.items()} for k in range(members)
        ]
        _try(name, found, own_options[0], take_tree(params, torch.zeros(1, dtype=torch.int64)), schedules)
        return _furnish({**state, "vectors": {}, "slots": {}, "options": own_options}, _as_torch(params))

    def _furnish(state: State, work: Params) -> State:
        instances = [_instance(name, found, kw, work, k) for k, kw in enumerate(state["options"])]
        return {**state, "work": work, "instances": instances}

    @torch.no_grad()
    def update(grads: Params, state: State, params: Params, **signals: Any) -> tuple[Params, State]:
        updates, work = own(grads, params), state["work"]
        slopes = _as_torch(updates)
        for leaf, start in zip(work.values(), _as_torch(params).values(), strict=True):
            leaf.copy_(start)
        now = next_hyper(hyper, state, signals)
        moved = {key: now[key].tolist() for key in schedules}
        for k, instance in enumerate(state["instances"]):
            for group in instance.param_groups:
                group.update({key: values[k] for key, values in moved.items()})
                for leaf, slope in zip(group["params"], slopes.values(), strict=True):
                    leaf.grad = slope[k]
            with torch.enable_grad():
                instance.step()
        for key, leaf in _from_torch(work, params).items():
            torch.sub(leaf, params[key], out=updates[key])
        return updates, {**state, "hyper": now}

    def dump(state: State) -> Any:
        kept = {key: value for key, value in state.items() if key not in ("instances", "work")}
        return {**kept, "instances": [copy.deepcopy(instance.state_dict()) for instance in state["instances"]]}

    def load(data: Any, params: Params) -> State:
        return _filled(_furnish(data, _as_torch(params)), data["instances"])

    def take(state: State, members: Tensor) -> State:
        rows = members.tolist()
        data = dump({**state, "instances": [state["instances"][k] for k in rows]})
        data = {key: take_tree(data[key], members) for key in ("hyper", "schedules", "vectors", "slots")} | {
            "options": [state["options"][k] for k in rows],
            "instances": data["instances"],
        }
        return _filled(_furnish(data, take_tree(state["work"], members)), data["instances"])

    return Optimizer(init, update, take, dump, load, needs=needs_of(hyper))


def _filled(state: State, saved: Sequence[Mapping[str, Any]]) -> State:
    for instance, own_state in zip(state["instances"], saved, strict=True):
        instance.load_state_dict(copy.deepcopy(dict(own_state)))
    return state


def _instance(name: str, found: OptimizerClass, options: Mapping[str, Any], work: Params, k: int) -> Any:
    try:
        return found([torch.nn.Parameter(leaf[k]) for leaf in work.values()], **options)
    except Exception as error:
        raise PgkitError(f"optimizer {name!r}: {error}") from error


def _try(
    name: str, found: OptimizerClass, options: Mapping[str, Any], params: Params, schedules: Sequence[str]
) -> None:
    """One step of a throw-away instance, so that what cannot work is told before training."""
    work = _as_torch(params)
    instance = _instance(name, found, options, work, 0)
    missing = [key for key in schedules if key not in instance.param_groups[0]]
    if missing:
        raise PgkitError(
            f"optimizer {name!r}: {missing[0]} is no option of its parameter groups, it can have no schedule"
        )
    for leaf in instance.param_groups[0]["params"]:
        leaf.grad = torch.ones_like(leaf)
    with torch.random.fork_rng(devices=[]):
        try:
            instance.step()
        except Exception as error:
            raise PgkitError(f"optimizer {name!r} cannot make a step here: {error or type(error).__name__}") from error


def _as_torch(params: Params) -> Params:
    """Copies, weights ``(P, out, in)`` and biases ``(P, out)``."""
    copies = {}
    for name, leaf in params.items():
        if leaf.dim() == 3:
            leaf = leaf.squeeze(1) if leaf.shape[1] == 1 and not name.endswith("weight") else leaf.mT
        copies[name] = leaf.detach().clone(memory_format=torch.contiguous_format)
    return copies


def _from_torch(work: Params, params: Params) -> Params:
    """Views of the copies in the shape of the parameters."""
    return {
        name: leaf if params[name].dim() != 3 else leaf.unsqueeze(1) if leaf.dim() == 2 else leaf.mT
        for name, leaf in work.items()
    }


def _defaults(found: OptimizerClass) -> dict[str, Any]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(inspect.signature(found).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind in kinds}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or value is inspect.Parameter.empty or isinstance(value, str | bool | int | float)


def _is_hyper(value: Any) -> bool:
    """Whether this is a number per member, as against a flag or a list such as betas."""
    numbers = value if isinstance(value, PerMember) else [value]
    return all(isinstance(n, Schedule | Tensor | int | float) and not isinstance(n, bool) for n in numbers)


def _of_member(key: str, value: Any, k: int, members: int) -> Any:
    """The option of member k; a list may be one value, such as betas."""
    if isinstance(value, Schedule):
        value = value.start
    if not isinstance(value, PerMember | Tensor):
        return tuple(value) if isinstance(value, list) else value
    values = value if isinstance(value, PerMember) else numbers_of(key, value)
    if len(values) not in (1, members):
        raise PgkitError(f"{key} has {len(values)} values for {members} members; give one, or one per member")
    return values[k % len(values)]


def _label(name: str | type) -> str:
    return name if isinstance(name, str) else name.__name__
