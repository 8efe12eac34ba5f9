"""The adapter for any ``torch.optim.Optimizer``: the same numbers as separate instances on plain modules."""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.odd_optimizers import NeverJudged, TwoPoints
from torch import Tensor, nn

from pgkit.errors import PgkitError
from pgkit.optim import (
    Optimizer,
    OptimizerSpec,
    apply_updates,
    diagnostics,
    from_config,
    from_torch,
    make,
    register,
    spec,
    take_tree,
)
from pgkit.optim import registry as optim_registry
from pgkit.optim.base import Hyperparameter
from pgkit.optim.optimizers import momentum
from pgkit.types import Params

SIZES = (5, 7, 3)
STEPS = 20


class Whitened(torch.optim.Optimizer):
    """Not element-wise, in the manner of SOAP and Shampoo: the step of a weight is that of all its entries together.

    W = W - lr (G G^T + eps 1)^(-1/2) G for matrices ``(out, in)``, with momentum; others follow the gradient's sign.
    """

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1, momentum: float = 0.5, eps: float = 1e-4) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("buffer", torch.zeros_like(p))
                buffer.mul_(group["momentum"]).add_(p.grad)
                if p.dim() == 2:
                    values, vectors = torch.linalg.eigh(buffer @ buffer.T + group["eps"] * torch.eye(len(p)))
                    p.sub_(group["lr"] * (vectors * values.rsqrt()) @ vectors.T @ buffer)
                else:
                    p.sub_(group["lr"] * buffer.sign())


class NeedsClosure(torch.optim.Optimizer):
    """As LBFGS: the loss has to be evaluated again."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr})

    def step(self, closure: Callable[[], float]) -> float:  # type: ignore[override]
        return closure()


def modules(members: int) -> list[nn.Sequential]:
    """Make one module for each member, as torch users write them."""
    torch.manual_seed(0)
    layers = [[nn.Linear(a, b) for a, b in pairwise(SIZES)] for _ in range(members)]
    return [nn.Sequential(*stack) for stack in layers]


def stacked(models: list[nn.Sequential], of: Callable[[nn.Parameter], Tensor]) -> Params:
    """Stack ``of(parameter)`` as pgkit holds parameters: weights ``(P, in, out)``, biases ``(P, 1, out)``."""
    params = {}
    for layer in range(len(SIZES) - 1):
        weights, biases = zip(*((of(model[layer].weight), of(model[layer].bias)) for model in models), strict=True)
        params[f"actor.{layer}.weight"] = torch.stack(weights).mT.contiguous()
        params[f"actor.{layer}.bias"] = torch.stack(biases).unsqueeze(1)
    return params


def copy_of(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().clone()


def gradient_of(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    assert parameter.grad.any()
    return parameter.grad.clone()


def backward(model: nn.Sequential, step: int) -> None:
    """Compute a gradient that depends on the parameters, so that errors would add up."""
    x = torch.randn(16, SIZES[0], generator=torch.Generator().manual_seed(step))
    model.zero_grad()
    torch.sin(model(x)).square().mean().backward()


OPTIMIZERS: list[tuple[type[torch.optim.Optimizer], list[dict[str, Any]]]] = [
    (torch.optim.Adam, [{"lr": rate, "betas": (0.8, 0.99)} for rate in (1e-4, 1e-2, 1.0)]),
    (torch.optim.SGD, [{"lr": rate, "momentum": 0.9, "nesterov": True} for rate in (0.1, 0.2, 0.3)]),
    (torch.optim.Rprop, [{"lr": rate} for rate in (0.01, 0.02, 0.03)]),
    (torch.optim.Adafactor, [{"lr": rate} for rate in (0.01, 0.02, 0.03)]),
    (Whitened, [{"lr": rate, "momentum": 0.1 * rate} for rate in (0.1, 0.2, 0.3)]),
]


@pytest.mark.parametrize(("cls", "options"), OPTIMIZERS, ids=[cls.__name__ for cls, _ in OPTIMIZERS])
def test_adapter_equals_separate_instances(cls: type[torch.optim.Optimizer], options: list[dict[str, Any]]) -> None:
    models = modules(len(options))
    references = [cls(model.parameters(), **chosen) for model, chosen in zip(models, options, strict=True)]
    varied = {key for chosen in options for key in chosen if len({repr(o[key]) for o in options}) > 1}
    optimizer = from_torch(
        cls, **{key: torch.tensor([o[key] for o in options], dtype=torch.float64) for key in varied},
        **{key: value for key, value in options[0].items() if key not in varied},
    )  # fmt: skip
    params = stacked(models, copy_of)
    state = optimizer.init(params)
    for step in range(STEPS):
        for model in models:
            backward(model, step)
        updates, state = optimizer.update(stacked(models, gradient_of), state, params)
        params = apply_updates(params, updates)
        for reference in references:
            reference.step()
        for name, expected in stacked(models, copy_of).items():
            torch.testing.assert_close(params[name], expected, rtol=1e-6, atol=1e-7)
        params = stacked(models, copy_of)  # p + (new - p) is new but for the last bit: compare steps


def test_muon_is_not_element_wise_and_works() -> None:
    """``torch.optim.Muon`` takes matrices only; biases are another group's."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon")
    table = {"name": "torch.optim:Muon", "lr": 0.02, "groups": {"*.bias": {"name": "sgd", "lr": 0.1}}}
    tables = [{**table, "lr": 0.02 * (k + 1)} for k in range(3)]
    models = modules(3)
    weights = [[model[layer].weight for layer in range(2)] for model in models]
    references = [torch.optim.Muon(leaves, lr=t["lr"]) for leaves, t in zip(weights, tables, strict=True)]
    optimizer = from_config(tables)
    params = stacked(models, copy_of)
    state = optimizer.init(params)
    for step in range(5):
        for model in models:
            backward(model, step)
        updates, state = optimizer.update(stacked(models, gradient_of), state, stacked(models, copy_of))
        before = stacked(models, copy_of)
        for reference in references:
            reference.step()
        for name, expected in stacked(models, copy_of).items():
            if name.endswith("weight"):
                torch.testing.assert_close(updates[name], expected - before[name], rtol=1e-4, atol=1e-6)
            else:
                assert updates[name].any()


def test_adapter_in_pieces_is_the_adapter_in_one() -> None:
    """Members taken in the middle keep their instances' state."""
    optimizer = from_torch(Whitened, lr=torch.tensor([0.1, 0.2, 0.3]))
    models = modules(3)
    backward_all = [backward(model, 0) for model in models]
    assert backward_all == [None] * 3
    params, grads = stacked(models, copy_of), stacked(models, gradient_of)
    _, state = optimizer.update(take_tree(grads, torch.arange(3)), optimizer.init(params), params)
    rows = torch.tensor([2, 0])
    part = optimizer.take(state, rows)
    some, _ = optimizer.update(take_tree(grads, rows), part, take_tree(params, rows))
    whole, _ = optimizer.update(grads, state, params)
    for name, leaf in some.items():
        assert torch.equal(leaf, whole[name][rows])


def test_adapter_follows_a_schedule() -> None:
    table = {"name": "torch.optim:SGD", "lr": 0.4, "schedule": {"lr": {"kind": "linear", "end": 0.2}}}
    optimizer, params = from_config([table]), {"w": torch.zeros(1, 3)}
    state = optimizer.init(params)
    for progress, rate in ((0.0, 0.4), (0.5, 0.3), (1.0, 0.2)):
        signal = torch.full((1,), progress, dtype=torch.float64)
        updates, state = optimizer.update({"w": torch.ones(1, 3)}, state, params, progress=signal)
        torch.testing.assert_close(updates["w"], torch.full((1, 3), -rate))
        torch.testing.assert_close(diagnostics(state)["lr"], torch.tensor([rate], dtype=torch.float64))


def test_a_class_with_modes_is_trained_in_one_and_judged_in_the_other() -> None:
    optimizer = from_torch(TwoPoints, lr=torch.tensor([0.5, 0.25]))
    assert optimizer.eval_params is not None
    params, grads = {"w": torch.ones(2, 3, 2)}, {"w": torch.ones(2, 3, 2)}
    state = optimizer.init(params)
    assert torch.equal(optimizer.eval_params(params, state)["w"], params["w"])
    for step in range(3):
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        if step == 1:
            state = optimizer.load(optimizer.dump(state), params)
        shown = optimizer.eval_params(params, state)
        assert (shown["w"] - params["w"])[:, 0, 0].tolist() == [0.25, 0.125]
        assert shown["w"].is_contiguous()
    assert params["w"][:, 0, 0].tolist() == [-0.5, 0.25]  # as if nobody had looked
    rows = torch.tensor([1, 0])
    swapped = optimizer.eval_params(take_tree(params, rows), optimizer.take(state, rows))
    assert torch.equal(swapped["w"], take_tree(shown, rows)["w"])


def test_a_class_without_modes_is_judged_where_it_acts() -> None:
    assert from_torch(Whitened).eval_params is None
    mixed = from_config([{"name": "torch.optim:SGD"}, {"name": "adam"}])
    assert mixed.eval_params is None


def test_a_class_that_cannot_be_judged_is_refused_in_one_line() -> None:
    with pytest.raises(PgkitError, match=r"cannot be evaluated: no point to speak of$"):
        from_torch(NeverJudged).init({"w": torch.ones(2, 3)})


@pytest.mark.parametrize("name", ["AdamWScheduleFree", "SGDScheduleFree", "RAdamScheduleFree"])
def test_classes_of_schedulefree_are_those_of_separate_instances(name: str) -> None:
    """y after each step, and x before the first and after the last one; x is looked at in between, too."""
    cls = getattr(pytest.importorskip("schedulefree"), name)
    models = modules(3)
    rates = (0.01, 0.02, 0.03)
    references = [cls(model.parameters(), lr=rate) for model, rate in zip(models, rates, strict=True)]
    for reference in references:
        reference.train()
    optimizer = make(f"schedulefree:{name}", lr=torch.tensor(rates, dtype=torch.float64))
    assert optimizer.eval_params is not None
    params = stacked(models, copy_of)
    state = optimizer.init(params)
    for step in range(8):  # RAdam does not move in the first five
        for model in models:
            backward(model, step)
        updates, state = optimizer.update(stacked(models, gradient_of), state, params)
        for reference in references:
            reference.step()
        assert_near(apply_updates(params, updates), stacked(models, copy_of))
        params = stacked(models, copy_of)  # p + (new - p) is new but for the last bit: compare steps
        shown = optimizer.eval_params(params, state)
    for reference in references:
        reference.eval()
    assert_near(shown, stacked(models, copy_of))
    assert (shown["actor.0.weight"] != params["actor.0.weight"]).any()


def assert_near(params: Params, others: Params) -> None:
    for name, expected in others.items():
        torch.testing.assert_close(params[name], expected, rtol=1e-6, atol=1e-7)


def test_a_closure_of_schedulefree_is_refused() -> None:
    pytest.importorskip("schedulefree")
    with pytest.raises(PgkitError, match="AdamWScheduleFreeClosure' needs a closure that evaluates the loss again"):
        from_config([{"name": "schedulefree:AdamWScheduleFreeClosure"}])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("torch.optim:LBFGS", {}, "'torch.optim:LBFGS' needs a closure that evaluates the loss again"),
        ("torch.optim:Adm", {}, "torch.optim has no 'Adm' (did you mean 'Adam'?)"),
        ("torch.optim:Adam", {"lrr": 1.0}, "unknown key 'lrr' (did you mean 'lr'?)"),
        ("torch.optim:Adam", {"lr": -1.0}, "Invalid learning rate"),
        ("torch.optim:SparseAdam", {}, "cannot make a step: SparseAdam does not support dense gradients"),
        ("no_such_module:Adam", {}, "cannot import 'no_such_module'"),
        ("torch.nn:Linear", {}, "is no subclass of torch.optim.Optimizer"),
    ],
)
def test_a_class_that_cannot_work_is_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError, match=re.escape(message)) as error:
        make(name, **options).init({"w": torch.ones(2, 3)})
    assert "\n" not in str(error.value)


def test_a_closure_is_refused_for_a_class_too() -> None:
    with pytest.raises(PgkitError, match="needs a closure"):
        from_torch(NeedsClosure)


@pytest.fixture
def clean_registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, OptimizerSpec]:
    """The registry, restored after the test."""
    copy = dict(optim_registry._REGISTRY)
    monkeypatch.setattr(optim_registry, "_REGISTRY", copy)
    return copy


def heavy(lr: Hyperparameter = 0.1) -> Optimizer:
    """b = 0.99 b + g; p = p - lr b.

    Source: nobody.
    """
    return momentum(lr, 0.99)


def test_a_users_optimizer_registers_in_one_line(clean_registry: dict[str, OptimizerSpec]) -> None:
    register("heavy", heavy)
    assert spec("heavy") == OptimizerSpec("heavy", heavy, "b = 0.99 b + g; p = p - lr b.", "nobody.", {"lr": 0.1})
    tables = [{"name": "heavy", "lr": rate, "max_grad_norm": 1e3} for rate in (0.5, 0.25)]
    optimizer, params = from_config(tables), {"w": torch.ones(2, 3)}
    updates, state = optimizer.update({"w": torch.ones(2, 3)}, optimizer.init(params), params)
    torch.testing.assert_close(updates["w"][:, 0], torch.tensor([-0.5, -0.25]))
    updates, state = optimizer.update({"w": torch.ones(2, 3)}, state, params)
    torch.testing.assert_close(updates["w"][:, 0], torch.tensor([-0.995, -0.4975]))
    with pytest.raises(PgkitError, match="there is an optimizer 'heavy' already"):
        register("heavy", heavy)
