"""Optimizers as other people write them, each with one habit that an adapter has to cope with."""

import enum
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Descent(torch.optim.Optimizer):
    """``p = p - lr direction(p)``; the classes below say what the direction is."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1, **options: Any) -> None:
        super().__init__(params, {"lr": lr, **options})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * self.direction(p, group))

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        return p.grad


class Clips(Descent):
    """Has options with names that pgkit uses around every optimizer."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.1, max_grad_norm: float = 2.0, centralize: bool = True
    ) -> None:
        super().__init__(params, lr, max_grad_norm=max_grad_norm, centralize=centralize)

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        assert group["centralize"] is True
        return p.grad * min(1.0, group["max_grad_norm"] / float(p.grad.norm()))


class Named(Descent):
    """Has options with the names of pgkit's keys."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1, name: str = "plain", schedule: str = "flat") -> None:
        super().__init__(params, lr, name=name, schedule=schedule)

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        assert group["name"] == "plain"
        return p.grad if group["schedule"] == "flat" else 2 * p.grad


class Mode(enum.Enum):
    """How a direction is scaled."""

    HALF = 0.5
    WHOLE = 1.0


class Level(enum.IntEnum):
    """An enum that is a number, too."""

    ONE = 1
    TWO = 2


class OddOptions(Descent):
    """Options that no config can hold: a dtype, enums, functions, a dict whose keys are real numbers."""

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 0.1,
        dtype: torch.dtype = torch.float64,
        mode: Mode = Mode.HALF,
        level: Level = Level.TWO,
        reduce_func: Callable[[Tensor], Tensor] | None = torch.max,
        scale: Callable[[int], float] = lambda step: 1 / (1 + step),
    ) -> None:
        options = {"dtype": dtype, "mode": mode, "level": level, "reduce_func": reduce_func, "scale": scale}
        super().__init__(params, lr, table={0.5: 2.0, 1.5: 3.0}, **options)

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        assert isinstance(group["level"], Level)
        state = self.state[p]
        state["step"] = state.get("step", 0) + 1
        largest = group["reduce_func"](p.grad.to(group["dtype"]).abs())
        return p.grad / (largest + 1) * group["mode"].value * group["scale"](state["step"]) * group["table"][0.5]


class Average:
    """A running mean with a ``state_dict``."""

    def __init__(self) -> None:
        self.mean = 0.0

    def state_dict(self) -> dict[str, float]:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.mean = state["mean"]


class OddState(Descent):
    """State and attributes of all kinds: each changes the step, so each has to come back."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.average = Average()
        self.generator = torch.Generator().manual_seed(1)
        self.numpy_generator = np.random.default_rng(2)
        self.python_generator = random.Random(3)
        self.calls = 0

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        self.calls += 1
        self.average.mean = 0.5 * self.average.mean + float(p.grad.sum())
        state = self.state[p]
        if not state:
            state.update(dtype=torch.bfloat16, mode=Mode.WHOLE, norm=torch.linalg.norm, table={0.5: 0.0}, seen={0})
            state.update(half=torch.zeros_like(p, dtype=torch.bfloat16), mask=p > 0, count=np.float64(0.0))
        state["half"] = (state["half"] + p.grad / 3).to(state["dtype"])  # load_state_dict would make it float32
        state["mask"] = ~state["mask"]
        state["table"][0.5] += 0.1
        state["seen"].add(self.calls)
        state["count"] += 1.0
        noise = (
            torch.rand((), generator=self.generator) + self.numpy_generator.random() + self.python_generator.random()
        )
        scale = noise + state["table"][0.5] + len(state["seen"]) + state["count"] + self.average.mean + self.calls
        return (state["half"] + state["mask"]) * scale / (state["norm"](p.grad) + 1000) * state["mode"].value


class Opaque:
    """Something that nobody can write down."""


class Unsavable(Descent):
    """Keeps an object in its state that cannot be saved."""

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        self.state[p].setdefault("helper", Opaque())
        return p.grad


_STEPS_OF_ALL = 0


class RemembersElsewhere(Descent):
    """Counts steps in a variable of its module, which no instance can save."""

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        global _STEPS_OF_ALL
        assert p.grad is not None
        _STEPS_OF_ALL += 1
        return p.grad * _STEPS_OF_ALL


class Fails(Descent):
    """Raises at step ``at``; a real number, so that members may differ in it."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1, at: float = 1e9) -> None:
        super().__init__(params, lr, at=at)
        self.steps = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.steps += 1
        super().step()
        if self.steps >= self.param_groups[0]["at"]:
            raise ArithmeticError("the matrix\nis singular")


class Resizes(Fails):
    """Assigns a tensor of another shape to its parameters at step ``at``, before that one of the same shape."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad if self.steps < group["at"] else p.data.new_zeros(77)


class Noisy(Descent):
    """Draws from the generators of the process, also when it is made."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr)
        self.offset = random.random() + float(torch.rand(()))

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        noise = torch.randn_like(p) + np.random.standard_normal() + random.gauss(0, 1)  # noqa: NPY002 - as others do
        return p.grad + 0.1 * noise + self.offset


class TwoPoints(Descent):
    """Steps in the mode of training only, as schedulefree's; in the other it moves to the mean of its last two points.

    Nobody puts the parameters back.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, lr, training=False)

    def train(self) -> None:
        for group in self.param_groups:
            group["training"] = True

    @torch.no_grad()
    def eval(self) -> None:
        for group in self.param_groups:
            group["training"] = False
            for p in group["params"]:
                if "last" in self.state[p]:
                    p.data = (p + self.state[p]["last"]) / 2

    def direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        assert p.grad is not None
        assert group["training"], "not in train mode"
        self.state[p]["last"] = p.clone()
        return p.grad


class NeverJudged(TwoPoints):
    """It cannot be evaluated."""

    def eval(self) -> None:
        raise RuntimeError("no point\nto speak of")
