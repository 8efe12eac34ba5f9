"""Optimizers as other people write them, each with one habit that an adapter has to cope with."""

from collections.abc import Iterable
from typing import Any

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
