"""Adapt any ``torch.optim.Optimizer`` class, element-wise or not, with one instance for each member.

An instance sees its member's parameters as ``torch.nn`` would hold them, since some optimizers treat matrices and
vectors differently: weights ``(out, in)``, biases ``(out,)``. They are views of stacked working copies, so that the
parameters themselves are never written into.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.errors import PgkitError, format_error
from pgkit.optim.base import ExtraArgs, Hyperparameter, Optimizer, Schedule, State, StepResult, checked_grads
from pgkit.optim.hyperparameters import (
    init_hyperparameters,
    members_and_device,
    next_hyperparameters,
    required_by,
)
from pgkit.optim.instance_state import dump_instance, load_instance
from pgkit.optim.random_numbers import digest, seeded_generators
from pgkit.optim.torch_options import OptimizerClass, default_options, is_hyperparameter, is_plain, option_of
from pgkit.optim.update import finish
from pgkit.optim.validation import check_keys
from pgkit.system.imports import import_object
from pgkit.tree import take_tree, where_tree
from pgkit.types import Params


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
    defaults = default_options(optimizer_class)
    label = name if isinstance(name, str) else name.__name__
    check_keys(f"optimizer {label!r}", options, defaults)
    return _adapted(label, optimizer_class, {**defaults, **options})


def torch_spec(name: str) -> tuple[Callable[..., Optimizer], str, str, dict[str, Any]]:
    """Describe ``"package.module:Class"`` for the registry: build, formula, source and defaults."""
    optimizer_class = find_class(name)
    summary = (inspect.getdoc(optimizer_class) or "").strip().partition("\n\n")[0]
    defaults = default_options(optimizer_class)
    mandatory = {key for key, value in defaults.items() if value is inspect.Parameter.empty}
    plain = {key: None if key in mandatory else value for key, value in defaults.items() if is_plain(value)}

    def build(**options: Any) -> Optimizer:
        stated = {key: value for key, value in options.items() if key not in mandatory or value is not None}
        return from_torch(name, **stated)

    return build, " ".join(summary.split()), name.replace(":", "."), plain


def find_class(name: str) -> type[torch.optim.Optimizer]:
    """Import the class ``"package.module:Class"``, also from modules in the working directory.

    Raises:
        PgkitError: there is no such class, it is no optimizer, or it needs a closure.
    """
    return _checked(name, import_object(name, "optimizer"))


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
        key: value for key, value in options.items() if is_hyperparameter(value)
    }
    scheduled = [key for key, value in hyperparameters.items() if isinstance(value, Schedule)]
    adapter = _Adapter(name, optimizer_class, options, hyperparameters, scheduled)
    requires = required_by(hyperparameters)
    return Optimizer(
        init=adapter.init,
        step=adapter.step,
        take=adapter.take,
        copy=lambda state: adapter.take(state, torch.arange(len(state["errors"]))),
        where=adapter.where,
        dump=_dump,
        load=adapter.load,
        requires=requires,
        eval_params=adapter.eval_params if _has_modes(optimizer_class) else None,
    )


def _has_modes(optimizer_class: OptimizerClass) -> bool:
    """Whether instances put other parameters in place for evaluation, as schedule-free optimizers do."""
    return all(callable(getattr(optimizer_class, mode, None)) for mode in ("train", "eval"))


class _Instance(NamedTuple):
    """The optimizer of one member, and the parameters that it writes into."""

    optimizer: Any
    leaves: list[Tensor]


@dataclass(frozen=True)
class _Adapter:
    """The functions of an adapted optimizer.

    State: ``"hyperparameters"`` and ``"schedules"`` as in a chain; ``"work"``, the copies of the parameters that the
    instances write into; and by member ``"instances"``, ``"options"`` (the numbers in which members may differ),
    ``"errors"`` (what its instance has raised, or None), ``"random_key"`` and ``"steps"``, int64 ``(P,)``.

    Some optimizers draw random numbers. The numbers of a step depend on the member's key and how many steps it has
    made; the key is a digest of its first parameters and gradients, which differ from seed to seed, and are the same
    whichever members train beside it.
    """

    name: str
    optimizer_class: OptimizerClass
    options: Mapping[str, Any]
    hyperparameters: Mapping[str, Hyperparameter]
    scheduled: Sequence[str]

    def init(self, params: Params) -> State:
        members, device = members_and_device(params)
        options_by_member = [
            {key: option_of(key, value, k, members) for key, value in self.hyperparameters.items()}
            for k in range(members)
        ]
        self._try(options_by_member[0], take_tree(params, torch.zeros(1, dtype=torch.int64)))
        state = init_hyperparameters(self.hyperparameters, members, device)
        state |= {"member_state": {}, "metrics": {}, "leaf_state": {}, "options": options_by_member}
        return self._with_instances(state | _initial_history(params), _as_torch(params))

    def step(self, grads: Params, state: State, params: Params, extra_args: ExtraArgs, add: bool) -> StepResult:
        updates = checked_grads(grads, params)
        torch_grads = _as_torch(updates)
        work = state["work"]
        for leaf, start in zip(work.values(), _as_torch(params).values(), strict=True):
            leaf.copy_(start)
        hyper = next_hyperparameters(self.hyperparameters, state, extra_args)
        scheduled_values = {key: hyper[key].tolist() for key in self.scheduled}
        keys = _random_keys(state, torch_grads)
        errors = list(state["errors"])
        with seeded_generators(keys.device) as seed:
            for k, (key, steps) in enumerate(zip(keys.tolist(), state["steps"].tolist(), strict=True)):
                for group in state["instances"][k].optimizer.param_groups:
                    group.update({name: values[k] for name, values in scheduled_values.items()})
                seed(digest(key, steps + 1))
                if errors[k] is None:
                    error = _step_member(state["instances"][k], work, torch_grads, k)
                    errors[k] = error and f"optimizer {self.name!r} raised {format_error(error)}"
        failed = [k for k, error in enumerate(errors) if error]
        for key, leaf in _from_torch(work, params).items():
            torch.sub(leaf, params[key], out=updates[key])
            updates[key][failed] = torch.nan
        history = {"random_key": keys, "steps": state["steps"] + 1, "errors": errors}
        return finish(updates, {**state, **history, "hyperparameters": hyper}, params, add)

    @torch.no_grad()
    def eval_params(self, params: Params, state: State) -> Params:
        """Ask a copy of each instance for evaluation parameters, so that nothing disturbs its training.

        Members whose instance has raised keep their parameters.
        """
        copied = self.take(state, torch.arange(len(state["errors"])))
        work = copied["work"]
        for leaf, start in zip(work.values(), _as_torch(params).values(), strict=True):
            leaf.copy_(start)
        for k, instance in enumerate(copied["instances"]):
            if state["errors"][k] is None:
                instance.optimizer.eval()
                _write_back(instance, work, k)
        return {name: leaf.contiguous() for name, leaf in _from_torch(work, params).items()}

    def take(self, state: State, members: Tensor) -> State:
        rows = members.tolist()
        taken = take_tree(_stacked(state), members) | {key: [state[key][k] for k in rows] for key in _BY_MEMBER}
        saved = [dump_instance(*state["instances"][k]) for k in rows]
        return _load_instances(self._with_instances(taken, take_tree(state["work"], members)), saved)

    def where(self, condition: Tensor, state: State, other: State) -> State:
        """Select each member's state by making its instance anew: instances hold views of working copies."""
        chosen = [state if is_true else other for is_true in condition.tolist()]
        stacked = where_tree(condition, _stacked(state), _stacked(other))
        by_member = {key: [each[key][k] for k, each in enumerate(chosen)] for key in _BY_MEMBER}
        saved = [dump_instance(*each["instances"][k]) for k, each in enumerate(chosen)]
        work = where_tree(condition, state["work"], other["work"])
        return _load_instances(self._with_instances({**stacked, **by_member}, work), saved)

    def load(self, data: Any, params: Params) -> State:
        history = _initial_history(params)  # which earlier checkpoints lack
        state = self._with_instances({**data, **history, **data}, _as_torch(params))
        return _load_instances(state, data["instances"])

    def _with_instances(self, state: State, work: Params) -> State:
        """Add to a state the working copies, and an instance for each member."""
        keys = state["random_key"]
        with seeded_generators(keys.device) as seed:
            instances = []
            for k, key in enumerate(keys.tolist()):
                seed(digest(key, 0))
                instances.append(self._instance(state["options"][k], work, k))
        return {**state, "work": work, "instances": instances}

    def _instance(self, options: Mapping[str, Any], work: Params, k: int) -> _Instance:
        """Make the instance of member k over views of the working copies."""
        leaves: list[Tensor] = [torch.nn.Parameter(leaf[k]) for leaf in work.values()]
        shared = {key: tuple(value) if isinstance(value, list) else value for key, value in self.options.items()}
        try:
            optimizer = self.optimizer_class(list(leaves), **{**shared, **options})
            if _has_modes(self.optimizer_class):
                optimizer.train()  # type: ignore[attr-defined] # schedule-free optimizers begin in neither mode
            return _Instance(optimizer, leaves)
        except Exception as error:
            first = next(iter(inspect.signature(self.optimizer_class).parameters))
            hint = "" if "param" in first else f"; its first argument is {first!r}, but pgkit has a list of parameters"
            raise PgkitError(f"optimizer {self.name!r} cannot be made: {_one_line(error)}{hint}") from error

    def _try(self, options: Mapping[str, Any], params: Params) -> None:
        """Make some steps with throw-away instances, so that what cannot work or be resumed fails before training."""
        _, device = members_and_device(params)
        with seeded_generators(device) as seed:
            seed(0)
            work = _as_torch(params)
            instance = self._instance(options, work, 0)
            missing = [key for key in self.scheduled if key not in instance.optimizer.param_groups[0]]
            if missing:
                raise PgkitError(
                    f"optimizer {self.name!r}: {missing[0]} cannot have a schedule, "
                    "because it is no option of its parameter groups"
                )
            for number in range(2):
                self._trial_step(instance, work, number, seed)
            halfway = {name: leaf.clone() for name, leaf in work.items()}
            copies = {name: leaf.clone() for name, leaf in work.items()}
            restored = self._instance(options, copies, 0)
            try:
                load_instance(*restored, dump_instance(*instance))
            except Exception as error:
                raise PgkitError(f"optimizer {self.name!r} cannot be resumed: {_one_line(error)}") from error
            for number in range(2, 4):
                self._trial_step(instance, work, number, seed)
                self._trial_step(restored, copies, number, seed)
            if not all(_nearly_equal(leaf, copies[name], halfway[name]) for name, leaf in work.items()):
                raise PgkitError(
                    f"optimizer {self.name!r} cannot be resumed: its steps depend on more than "
                    "its options, its state and its attributes"
                )
            if _has_modes(self.optimizer_class):
                self._try_eval(restored)

    def _try_eval(self, instance: _Instance) -> None:
        """Put a throw-away instance into the mode for evaluation."""
        try:
            instance.optimizer.eval()
        except Exception as error:
            raise PgkitError(f"optimizer {self.name!r} cannot be evaluated: {_one_line(error)}") from error

    def _trial_step(self, instance: _Instance, work: Params, number: int, seed: Callable[[int], None]) -> None:
        seed(number)
        grads = {name: torch.ones_like(leaf) / (number + 1) for name, leaf in work.items()}
        error = _step_member(instance, work, grads, 0)
        if error is not None:
            raise PgkitError(f"optimizer {self.name!r} cannot make a step: {_one_line(error)}") from error


def _step_member(instance: _Instance, work: Params, grads: Params, k: int) -> Exception | None:
    """Let the instance of member k make a step on the working copies; returns what it raised."""
    for leaf, grad in zip(instance.leaves, grads.values(), strict=True):
        leaf.grad = grad[k]
    try:
        with torch.enable_grad():
            instance.optimizer.step()
        _write_back(instance, work, k)
    except Exception as error:  # an optimizer may raise anything; it is the failure of its member alone
        return error
    return None


def _write_back(instance: _Instance, work: Params, k: int) -> None:
    """Bring the parameters of member k's instance back into the working copies if it has assigned to ``leaf.data``."""
    for leaf, stacked in zip(instance.leaves, work.values(), strict=True):
        view = stacked[k]
        if leaf.data_ptr() != view.data_ptr():
            view.copy_(leaf.detach())
            leaf.data = view


def _nearly_equal(first: Tensor, second: Tensor, start: Tensor) -> bool:
    """Whether two ways from ``start`` are the same but for rounding: LAPACK's depends on memory addresses."""
    both = torch.nan_to_num(first - start), torch.nan_to_num(second - start)
    return bool((both[0] - both[1]).abs().max() <= 1e-2 * both[0].abs().max())


def _initial_history(params: Params) -> dict[str, Any]:
    """What the state holds of members that have made no step."""
    members, device = members_and_device(params)
    keys = [digest([leaf[k] for leaf in params.values()]) for k in range(members)]
    return {
        "random_key": torch.tensor(keys, device=device),
        "steps": torch.zeros(members, dtype=torch.int64, device=device),
        "errors": [None] * members,
    }


def _random_keys(state: State, grads: Params) -> Tensor:
    """The members' keys, int64 ``(P,)``; the first gradients are mixed in, as biases are alike at first."""
    keys: Tensor = state["random_key"]
    first = state["steps"] == 0
    if not first.any():
        return keys
    mixed = [digest(key, [grad[k] for grad in grads.values()]) for k, key in enumerate(keys.tolist())]
    return torch.where(first, torch.tensor(mixed, device=keys.device), keys)


_BY_MEMBER = ("options", "errors")
"""Lists in the state with an entry for each member."""


def _stacked(state: State) -> State:
    """What is in tensors."""
    return {key: value for key, value in state.items() if key not in ("instances", "work", *_BY_MEMBER)}


def _dump(state: State) -> Any:
    plain = {key: value for key, value in state.items() if key not in ("instances", "work")}
    return {**plain, "instances": [dump_instance(*instance) for instance in state["instances"]]}


def _load_instances(state: State, saved: Sequence[Mapping[str, Any]]) -> State:
    """Load what was saved into the instances of a state."""
    for instance, data in zip(state["instances"], saved, strict=True):
        load_instance(instance.optimizer, instance.leaves, data)
    return state


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


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
