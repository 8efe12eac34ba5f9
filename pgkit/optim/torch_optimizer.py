"""pgkit's optimizers as a ``torch.optim.Optimizer``: one recipe for anyone's training loop.

Each parameter group has an optimizer of its own, of one member. Each parameter has a state of its own, which begins
with its first gradient, as in PyTorch. Parameters of a group that have made equally many steps are updated in one call.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pgkit.errors import PgkitError
from pgkit.optim.around import AROUND
from pgkit.optim.base import Optimizer, Schedule, State
from pgkit.optim.hyperparameters import per_member
from pgkit.optim.registry import make, spec
from pgkit.optim.torch_layout import from_leaf, to_leaf
from pgkit.optim.validation import check_keys
from pgkit.tree import map_tree
from pgkit.types import Params


def as_torch(params: ParamsT, name: str, **settings: Any) -> torch.optim.Optimizer:
    """Make the optimizer ``name`` as a ``torch.optim.Optimizer``, in place of ``torch.optim.Adam(params, lr=...)``.

    >>> import torch
    >>> from torch import nn
    >>> from pgkit.optim import as_torch
    >>> _ = torch.manual_seed(0)
    >>> module = nn.Linear(3, 1)
    >>> optimizer = as_torch(module.parameters(), "adam", lr=0.1)
    >>> scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=100)
    >>> x = torch.randn(64, 3)
    >>> for _ in range(100):
    ...     loss = nn.functional.mse_loss(module(x), x.sum(1, keepdim=True))
    ...     optimizer.zero_grad()
    ...     loss.backward()
    ...     optimizer.step()
    ...     scheduler.step()
    >>> loss.item() < 0.001
    True

    Stable-Baselines3 takes it as ``policy_kwargs={"optimizer_class": as_torch, "optimizer_kwargs": {"name": "adam"}}``.

    Every setting is in ``param_groups``; numbers that the optimizer has from the start, such as ``lr``, may be changed
    there between steps. Matrices are transposed on their way in and out, because weights are (out, in) in PyTorch and
    (in, out) here. ``max_grad_norm`` clips the joint norm of the parameters of a group that have made equally many
    steps, which are usually all.

    Args:
        params: parameters, named parameters, or parameter groups, as every ``torch.optim.Optimizer`` takes them.
        name: as for :func:`pgkit.optim.make`.
        settings: as for :func:`pgkit.optim.make`, one number each, without ``schedule``: PyTorch has schedulers.

    Raises:
        PgkitError: unknown name or setting, a value out of range, or an optimizer that needs more than gradients.
    """
    if "schedule" in settings:
        raise _has_schedule(name)
    entry = spec(name)
    check_keys(f"optimizer {entry.name!r}", settings, [*entry.defaults, *AROUND])
    return TorchOptimizer(params, entry.name, entry.with_defaults(settings))


class TorchOptimizer(torch.optim.Optimizer):
    """What :func:`as_torch` returns.

    ``state[param]`` is ``{"step": int, "state": ...}``: how many steps the parameter has made, and what the optimizer
    remembers of it.
    """

    def __init__(self, params: ParamsT, name: str, settings: Mapping[str, Any]) -> None:
        self._name = name
        self._parts: list[_Part] = []
        super().__init__(params, dict(settings))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters; settings that it does not have are those of the optimizer."""
        super().add_param_group(param_group)
        settings = {key: param_group[key] for key in spec(self._name).with_defaults({})}
        try:
            self._parts.append(_make_part(self._name, settings, param_group))
        except PgkitError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients anew, before the step.

        Returns:
            What ``closure`` returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, part in zip(self.param_groups, self._parts, strict=True):
            part.check_unchanged(group)
            for params in self._params_by_age(group):
                self._update(params, part, group)
        return loss

    def _params_by_age(self, group: Mapping[str, Any]) -> Iterable[dict[str, Tensor]]:
        """Part the parameters that have a gradient by how many steps they have made, and by device."""
        by_age: dict[Any, dict[str, Tensor]] = {}
        for name, param in zip(_names(group), group["params"], strict=True):
            if param.grad is not None:
                age = self.state[param].get("step", 0)
                by_age.setdefault((age, param.device), {})[name] = param
        return by_age.values()

    def _update(self, params: Mapping[str, Tensor], part: "_Part", group: Mapping[str, Any]) -> None:
        """Update parameters that have made equally many steps."""
        for name, param in params.items():
            if not self.state[param]:
                self.state[param] = {"step": 0, "state": _first_state(part.optimizer, name, param)}
        state = _join({name: self.state[param]["state"] for name, param in params.items()})
        state = _with_numbers(state, {key: group[key] for key in part.changeable})
        leaves = {name: to_leaf(param[None]) for name, param in params.items()}
        updates, state = part.optimizer.update(_copy_grads(params), state, leaves, donate=True)
        for name, param in params.items():
            param.add_(from_leaf(updates[name], param.shape)[0])
            before = self.state[param]
            self.state[param] = {"step": before["step"] + 1, "state": _cut(state, before["state"], name)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned, in its dtypes, where PyTorch would round all to those of parameters.

        Raises:
            PgkitError: it is of another optimizer.
        """
        states = self._states_in(state_dict)
        super().load_state_dict(dict(state_dict))
        self.state.update(states)
        for group, part in zip(self.param_groups, self._parts, strict=True):
            for key, value in part.settings.items():
                group.setdefault(key, value)

    def _states_in(self, state_dict: Mapping[str, Any]) -> dict[Tensor, Any]:
        """Copy the states in a ``state_dict`` by parameter, each of the same form as a first state."""
        states = {}
        for group, part, saved_group in zip(self.param_groups, self._parts, state_dict["param_groups"], strict=False):
            for name, param, index in zip(_names(group), group["params"], saved_group["params"], strict=False):
                if index not in state_dict["state"]:
                    continue
                saved = state_dict["state"][index]
                if map_tree(_form, saved.get("state")) != map_tree(_form, _first_state(part.optimizer, name, param)):
                    raise PgkitError(f"as_torch: the state_dict is not of {self._name!r} with the same settings")
                states[param] = map_tree(partial(_copy_to, param.device), saved)
        return states

    def __getstate__(self) -> dict[str, Any]:
        settings = [part.settings for part in self._parts]
        return {**super().__getstate__(), "_name": self._name, "_parts": settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_parts" in state:  # it was copied or unpickled; load_state_dict calls this, too
            pairs = zip(state["_parts"], self.param_groups, strict=True)
            self._parts = [_make_part(self._name, settings, group) for settings, group in pairs]


class _Part(NamedTuple):
    """What updates the parameters of one group.

    Attributes:
        name: of the optimizer.
        optimizer: of one member.
        settings: those that it was made with.
        changeable: the names of those that are hyperparameters in its state, which may change between steps.
    """

    name: str
    optimizer: Optimizer
    settings: Mapping[str, Any]
    changeable: frozenset[str]

    def check_unchanged(self, group: Mapping[str, Any]) -> None:
        """Raise a PgkitError if a setting of the group has changed that the optimizer was built around."""
        for key, value in self.settings.items():
            if key not in self.changeable and group[key] != value:
                names = ", ".join(sorted(self.changeable)) or "none"
                raise PgkitError(
                    f"as_torch: {key} of {self.name!r} was {value!r} when it was made and is {group[key]!r} now; "
                    f"what may change: {names}"
                )


def _make_part(name: str, settings: Mapping[str, Any], group: Mapping[str, Any]) -> _Part:
    """Make the optimizer of a group.

    Raises:
        PgkitError: see :func:`as_torch`.
    """
    if any(isinstance(value, Schedule) for value in settings.values()):
        raise _has_schedule(name)
    optimizer = make(name, **settings)
    if optimizer.requires:
        needs = ", ".join(sorted(optimizer.requires))
        raise PgkitError(f"as_torch: {name!r} with these settings needs {needs}, which only optimizer.update takes")
    _check_leaf_by_leaf(name, optimizer, settings)
    leaves = {key: _zeros_like_leaf(name, param) for key, param in zip(_names(group), group["params"], strict=True)}
    if len(leaves) < len(group["params"]):
        raise PgkitError("as_torch: two parameters of a group have the same name; names may be left out")
    state = optimizer.init(leaves or {"0": torch.zeros(1, 1, 1)})
    if not _is_plain(state):
        raise PgkitError(f"as_torch: {name!r} remembers more than tensors; if it is PyTorch's, use it as it is")
    numbers: dict[str, set[float]] = {}
    for key, value in _hyperparameters(state):
        numbers.setdefault(key, set()).add(value.item())
    changeable = frozenset(key for key, values in numbers.items() if values == _number(settings.get(key)))
    return _Part(name, optimizer, settings, changeable)


def _check_leaf_by_leaf(name: str, optimizer: Optimizer, settings: Mapping[str, Any]) -> None:
    """Refuse what needs more of a module than its parameters one by one.

    Raises:
        PgkitError: the optimizer is judged at other parameters, or asks for the place of a parameter in a policy.
    """
    if optimizer.eval_params is not None:
        raise PgkitError(
            f"as_torch: {name!r} is to be evaluated at an average of its parameters, and a module has one set only; "
            "take a class with train() and eval(), such as schedulefree.AdamWScheduleFree"
        )
    if _asks_for_roles(optimizer):
        raise PgkitError(
            f"as_torch: {name!r} treats parameters by their place in a policy of pgkit, which a module does not tell; "
            "take torch.optim.Muon for hidden matrices, and another optimizer for the rest"
        )
    if settings.get("normalize_and_project") is not None:
        raise PgkitError("as_torch: normalize_and_project is for policies of pgkit, whose layer norms it knows by name")


def _asks_for_roles(optimizer: Optimizer) -> bool:
    parts = optimizer.parts
    return any(part.roles is not None for part in optimizer.transforms) or any(map(_asks_for_roles, parts))


def _has_schedule(name: str) -> PgkitError:
    return PgkitError(
        f"as_torch: {name!r} has a schedule, which follows pgkit's training; use torch.optim.lr_scheduler"
    )


def _zeros_like_leaf(name: str, param: Tensor) -> Tensor:
    """Zeros in the form of a leaf, to see what the state of an optimizer looks like."""
    if not param.is_floating_point():
        raise PgkitError(f"as_torch: {name!r} is for floating-point parameters, got {param.dtype}")
    return to_leaf(torch.zeros((), dtype=param.dtype).expand(1, *param.shape))


def _number(setting: Any) -> set[float] | None:
    """The number that a setting is, as a set; None if it is no single number."""
    return {float(setting)} if isinstance(setting, int | float | Tensor) else None


def _names(group: Mapping[str, Any]) -> Sequence[str]:
    """Names of the parameters of a group: those of ``named_parameters()``, or their places.

    Each has a dot, which no key of a state has: a parameter ``b`` is not the moment ``b``.
    """
    names = group.get("param_names") or [str(index) for index in range(len(group["params"]))]
    return [name if "." in name else f".{name}" for name in names]


def _copy_grads(params: Mapping[str, Tensor]) -> Params:
    """Copy the gradients as leaves, so that an update may overwrite them."""
    grads = {}
    for name, param in params.items():
        assert param.grad is not None
        if param.grad.layout != torch.strided:
            raise PgkitError(
                f"as_torch: the gradient of parameter {name.lstrip('.')} is sparse; pgkit has dense updates"
            )
        grads[name] = to_leaf(param.grad[None]).clone(memory_format=torch.contiguous_format)
    return grads


_PARAM = "."
"""Key of a parameter in its state, whatever its name, so that states can be loaded under other names."""


def _first_state(optimizer: Optimizer, name: str, param: Tensor) -> State:
    """Make the state of one parameter before its first step."""
    return _rename(optimizer.init({name: to_leaf(param.detach()[None])}), name)


def _rename(tree: Any, name: str) -> Any:
    """Put :data:`_PARAM` in place of the name of a parameter, in a state that has this one only."""
    if isinstance(tree, dict):
        return {_PARAM if key == name else key: _rename(value, name) for key, value in tree.items()}
    return [_rename(value, name) for value in tree] if isinstance(tree, list) else tree


def _join(trees: Mapping[str, Any]) -> Any:
    """Join the states of several parameters, by name, into that of an optimizer of all of them."""
    first = next(iter(trees.values()))
    if isinstance(first, list):
        return [_join({name: tree[index] for name, tree in trees.items()}) for index in range(len(first))]
    if not isinstance(first, dict):
        return first
    leaves = {name: tree[_PARAM] for name, tree in trees.items() if _PARAM in tree}
    keys = dict.fromkeys(key for tree in trees.values() for key in tree if key != _PARAM)
    return leaves | {key: _join({name: tree[key] for name, tree in trees.items() if key in tree}) for key in keys}


def _cut(tree: Any, like: Any, name: str) -> Any:
    """Cut out of a joint state that of one parameter, which has the entries of its state before, ``like``."""
    if isinstance(like, dict):
        return {key: _cut(tree[name if key == _PARAM else key], old, name) for key, old in like.items()}
    return [_cut(*pair, name) for pair in zip(tree, like, strict=True)] if isinstance(like, list) else tree


def _with_numbers(tree: Any, numbers: Mapping[str, Any]) -> Any:
    """Set hyperparameters, wherever they are in a state."""
    if isinstance(tree, list):
        return [_with_numbers(value, numbers) for value in tree]
    if not isinstance(tree, dict):
        return tree
    changed = {key: _with_numbers(value, numbers) for key, value in tree.items()}
    for key, old in tree.get("hyperparameters", {}).items():
        if key in numbers:
            changed["hyperparameters"][key] = per_member(key, numbers[key], 1, old.device)
    return changed


def _hyperparameters(tree: Any) -> Iterator[tuple[str, Tensor]]:
    """All hyperparameters in a state."""
    if isinstance(tree, dict):
        yield from tree.get("hyperparameters", {}).items()
    for value in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _hyperparameters(value)


def _is_plain(tree: Any) -> bool:
    """Whether a state is dicts, lists and tensors only."""
    if isinstance(tree, dict | list):
        return all(map(_is_plain, tree.values() if isinstance(tree, dict) else tree))
    return isinstance(tree, Tensor)


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


def _copy_to(device: torch.device, tensor: Tensor) -> Tensor:
    return tensor.to(device, copy=True)
