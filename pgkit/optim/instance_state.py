"""Save everything that an instance of a torch optimizer remembers as plain data, and load it into a new instance.

``state_dict`` is not enough: it holds no attributes of the instance, ``load_state_dict`` casts what it loads to the
dtype of the parameters, and both may hold objects that a checkpoint refuses. So options, state and attributes are
translated here, each object into a small table that says what it is. What has no translation (a lambda, say) must be in
the new instance already, at the same place.
"""

import enum
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor

_TAG = "instance of"
"""The key of a table that stands for an object."""

_MISSING = object()


class CannotSave(ValueError):
    """Something that the new instance does not have by itself can not be written down."""


def dump_instance(instance: torch.optim.Optimizer, leaves: Sequence[Tensor]) -> dict[str, Any]:
    """Copy options, state and attributes of an instance as dicts, lists, tensors, numbers and texts.

    Args:
        instance: any.
        leaves: its parameters, which are not written down but counted.
    """
    index_of_leaf = {id(leaf): index for index, leaf in enumerate(leaves)}
    seen: set[int] = set()
    content = {name: _dump(value, index_of_leaf, seen) for name, value in _remembered(instance).items()}
    data: dict[str, Any] = {"attributes": content}
    if type(instance).state_dict is not torch.optim.Optimizer.state_dict:  # it knows more: who is inside it, say
        data["state_dict"] = _dump(instance.state_dict(), index_of_leaf, seen)
    return data


def load_instance(instance: torch.optim.Optimizer, leaves: Sequence[Tensor], data: Mapping[str, Any]) -> None:
    """Make a new instance the one that was dumped.

    Args:
        instance: made with the same options; is changed.
        leaves: its parameters.
        data: of :func:`dump_instance`, or a ``state_dict``, as earlier checkpoints have it.

    Raises:
        CannotSave: the dumped instance had something that has no translation and that this one lacks.
    """
    if "attributes" not in data:
        instance.load_state_dict(_load(data, {}, leaves, "state"))
        return
    present = _remembered(instance)
    for name, value in data["attributes"].items():
        loaded = _load(value, present.get(name, _MISSING), leaves, name)
        setattr(instance, name, loaded)
    if "state_dict" in data:
        instance.load_state_dict(_load(data["state_dict"], _MISSING, leaves, "state_dict"))


def _remembered(instance: torch.optim.Optimizer) -> dict[str, Any]:
    """The attributes of an instance, without those that belong to torch itself, such as its hooks."""
    return {name: value for name, value in vars(instance).items() if name not in _attributes_of_torch()}


@lru_cache
def _attributes_of_torch() -> frozenset[str]:
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)], lr=0.0))) - {"state", "param_groups"}


def _dump(value: Any, index_of_leaf: Mapping[int, int], seen: set[int]) -> Any:
    """Translate one object; containers recursively."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if id(value) in index_of_leaf:
        return {_TAG: "parameter", "content": index_of_leaf[id(value)]}
    if type(value) in (Tensor, torch.nn.Parameter):
        return value.detach().clone()
    if id(value) in seen:
        return _kept(value)  # inside itself
    seen.add(id(value))
    try:
        return _dump_object(value, lambda part: _dump(part, index_of_leaf, seen))
    finally:
        seen.discard(id(value))


def _dump_object(value: Any, dump: Callable[[Any], Any]) -> Any:
    if type(value) is dict and all(type(key) in (str, int) for key in value) and _TAG not in value:
        return {key: dump(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(dump, value))
    if isinstance(value, Mapping):
        return _tagged("table", [[dump(key), dump(part)] for key, part in value.items()])
    for name, (expected_type, to_data, _) in _TRANSLATIONS.items():
        if isinstance(value, expected_type):
            data = to_data(value)
            return _kept(value) if data is None else _tagged(name, dump(data))
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        return _tagged("state of", dump(value.state_dict()))
    return _kept(value)


def _tagged(name: str, content: Any) -> dict[str, Any]:
    return {_TAG: name, "content": content}


def _kept(value: Any) -> dict[str, Any]:
    return _tagged("kept", type(value).__name__)


def _load(data: Any, present: Any, leaves: Sequence[Tensor], place: str) -> Any:
    """Translate back; ``present`` is what the new instance has at this place."""

    def part_of(key: Any) -> Any:
        try:
            return present[key]
        except (KeyError, IndexError, TypeError):
            return _MISSING

    if isinstance(data, Tensor):
        return data.clone()
    if isinstance(data, list | tuple):
        return type(data)(_load(part, part_of(i), leaves, f"{place}[{i}]") for i, part in enumerate(data))
    if not isinstance(data, dict):
        return data
    if _TAG not in data:
        table = {key: _load(part, part_of(key), leaves, f"{place}[{key!r}]") for key, part in data.items()}
        return _filled(present, table)
    name, content = data[_TAG], data["content"]
    if name == "parameter":
        return leaves[content]
    if name == "table":
        keys = [_load(key, _MISSING, leaves, place) for key, _ in content]
        parts = [part for _, part in content]
        table = {key: _load(part, part_of(key), leaves, place) for key, part in zip(keys, parts, strict=True)}
        return _filled(present, table)
    if name in _TRANSLATIONS:
        return _TRANSLATIONS[name][2](_load(content, _MISSING, leaves, place))
    if present is _MISSING:
        what = content if name == "kept" else "object with a state_dict"
        raise CannotSave(f"{place} holds something that no checkpoint can hold ({what})")
    if name == "state of":
        present.load_state_dict(_load(content, _MISSING, leaves, place))
    return present


def _filled(present: Any, table: dict[Any, Any]) -> Any:
    """The table, as the content of ``present`` if that is a dict: it may be a defaultdict, or known elsewhere, too."""
    if not isinstance(present, dict):
        return table
    present.clear()
    present.update(table)
    return present


def _name_of(value: Any) -> list[str] | None:
    """Module and name of a function or class, or None if it is not found under that name."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    return [module, name] if module and _by_name([module, name]) is value else None


def _by_name(name: Sequence[str]) -> Any:
    """The object of that name in a module that is imported; a checkpoint does not import anything."""
    value = sys.modules.get(name[0])
    for part in name[1].split("."):
        value = getattr(value, part, None)
    return value


def _known(name: Sequence[str]) -> Any:
    """As :func:`_by_name`, of what must be there.

    Raises:
        CannotSave: it is not.
    """
    value = _by_name(name)
    if value is None:
        raise CannotSave(f"{name[0]} has no {name[1]!r} any more")
    return value


def _array_data(value: Any) -> list[Any]:
    return [value.dtype.str, value.tolist()]


def _generator(data: Sequence[Any]) -> torch.Generator:
    generator = torch.Generator(data[0])
    generator.set_state(data[1].cpu())
    return generator


def _numpy_generator(data: Mapping[str, Any]) -> np.random.Generator:
    bits = getattr(np.random, data["bit_generator"])()
    bits.state = data
    return np.random.Generator(bits)


def _python_generator(data: Any) -> random.Random:
    generator = random.Random()
    generator.setstate(data)
    return generator


def _numpy_state(generator: np.random.RandomState) -> list[Any]:
    return list(generator.get_state())


def _numpy_random_state(data: Sequence[Any]) -> np.random.RandomState:
    generator = np.random.RandomState()
    generator.set_state(tuple(data))
    return generator


_TRANSLATIONS: Mapping[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "enum": (
        enum.Enum,
        lambda value: [*name, value.name] if (name := _name_of(type(value))) else None,
        lambda data: getattr(_known(data), data[2]),
    ),
    "dtype": (torch.dtype, lambda value: str(value).removeprefix("torch."), lambda data: getattr(torch, data)),
    "device": (torch.device, str, torch.device),
    "size": (torch.Size, list, torch.Size),
    "complex": (complex, lambda value: [value.real, value.imag], lambda data: complex(*data)),
    "bytes": (bytes, list, bytes),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "deque": (deque, lambda value: [list(value), value.maxlen], lambda data: deque(*data)),
    "NumPy array": (np.ndarray, _array_data, lambda data: np.array(data[1], data[0])),
    "NumPy number": (np.generic, _array_data, lambda data: np.dtype(data[0]).type(data[1])),
    "torch generator": (torch.Generator, lambda value: [str(value.device), value.get_state()], _generator),
    "NumPy generator": (np.random.Generator, lambda value: value.bit_generator.state, _numpy_generator),
    "NumPy random state": (np.random.RandomState, _numpy_state, _numpy_random_state),
    "Python generator": (random.Random, lambda value: value.getstate(), _python_generator),
    "function or class": (FunctionType | BuiltinFunctionType | MethodType | type, _name_of, _known),
}  # fmt: skip
"""By name: the type, its translation into data (None if there is none), and back."""
