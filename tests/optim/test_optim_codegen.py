"""Compiled steps compute what the same steps compute on tensors, wherever an element lies."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.compiler.jit import compile_module
from pgkit.errors import PgkitError
from pgkit.optim import Transform, apply_updates, chain, list_optimizers, make
from pgkit.optim.base import Leaf, Scalars
from pgkit.optim.transforms import scale_by_rate
from pgkit.types import Params

DTYPES = (torch.float32, torch.float64)
SHAPES = {"trunk.1.weight": (3, 37), "trunk.1.bias": (1, 37), "log_std": (5,)}
Function = Callable[[Tensor, Tensor, Tensor], Any]


def special(dtype: torch.dtype) -> Tensor:
    """List zeros of both signs, denormals, huge and tiny numbers, infinities, NaN."""
    info = torch.finfo(dtype)
    positive = [0.0, info.smallest_normal / 8, info.tiny, 0.3, 1.0, 2.5, info.max, torch.inf]
    return torch.tensor([*positive, *(-x for x in positive), torch.nan], dtype=dtype)


def compute(function: Function, a: Tensor, b: Tensor, number: float) -> Tensor:
    """Compute ``function(a, b, number)`` as the step of one member: a is the gradient, b the parameters."""
    step = Transform(
        lambda grad, leaf, scalars: function(grad, leaf.param, scalars["number"]),
        lambda hyper, member, extra_args: {"number": member["number"]},
        member_state={"number": number},
    )
    params, optimizer = {"p": b[None]}, chain(step)
    return optimizer.update({"p": a[None].clone()}, optimizer.init(params), params)[0]["p"][0]


FUNCTIONS: dict[str, Function] = {
    "add": lambda a, b, c: a + b * c + 1.0,
    "subtract": lambda a, b, c: 1.0 - (a - b) - c,
    "divide": lambda a, b, c: a / b + 1.0 / c,
    "negative": lambda a, b, c: -a,
    "abs": lambda a, b, c: torch.abs(a),
    "square": lambda a, b, c: torch.square(a),
    "sqrt": lambda a, b, c: torch.sqrt(a),
    "sign": lambda a, b, c: torch.sign(a),
    "maximum": lambda a, b, c: torch.maximum(a, b),
    "minimum": lambda a, b, c: torch.minimum(a, b),
    "clamp": lambda a, b, c: torch.clamp(a, -c, c),
    "clamp to numbers": lambda a, b, c: torch.clamp(a, min=-0.5),
    "where": lambda a, b, c: torch.where((a < b) & (a != c) | ~(b >= 0.0), a, 7.0),
    "where equal": lambda a, b, c: torch.where((a == b) | (a > 1.0) | (b <= -1.0), 3.0, b),
    "addcmul": lambda a, b, c: torch.addcmul(a, b, c),
    "lerp": lambda a, b, c: torch.lerp(a, b, c),
}
EXACT = sorted(set(FUNCTIONS) - {"addcmul", "lerp", "sqrt"})
"""torch rounds the other functions differently."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_those_of_torch(name: str, dtype: torch.dtype) -> None:
    values = special(dtype)
    a, b = torch.cartesian_prod(values, values).unbind(1)
    for number in (1e-3, 0.5, 0.9, 1.0):
        result = compute(FUNCTIONS[name], a, b, number)
        expected = FUNCTIONS[name](a, b, torch.tensor(number, dtype=dtype))
        if name in EXACT:
            assert torch.equal(result.nan_to_num(1234.5), expected.nan_to_num(1234.5))
        else:
            torch.testing.assert_close(result, expected, rtol=4 * torch.finfo(dtype).eps, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bits_are_the_same_at_every_place(name: str, dtype: torch.dtype) -> None:
    """Vector code, and the scalar code for the remaining elements."""
    a, b = (torch.randn(75, dtype=dtype).abs() for _ in range(2))
    together = compute(FUNCTIONS[name], a, b, 0.3)
    one_by_one = [compute(FUNCTIONS[name], a[k : k + 1], b[k : k + 1], 0.3) for k in range(len(a))]
    assert torch.equal(together, torch.cat(one_by_one))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fused_product_is_rounded_once(dtype: torch.dtype) -> None:
    """(1 + e)(1 - e) - 1 is -e^2, which two roundings lose."""
    e = torch.finfo(dtype).eps
    a, b = torch.tensor([-1.0], dtype=dtype), torch.tensor([1.0 + e], dtype=dtype)
    assert compute(lambda a, b, c: torch.addcmul(a, b, 2.0 - b), a, b, 1.0).item() == -(e**2)


def moved(name: str, options: Mapping[str, Any], dtype: torch.dtype) -> Params:
    """Return the parameters of three members after some steps."""
    random = torch.Generator().manual_seed(0)
    params = {name: torch.randn(3, *shape, generator=random).to(dtype) for name, shape in SHAPES.items()}
    optimizer = make(name, lr=[1e-3, 1e-2, 1e-1], **options)
    state = optimizer.init(params)
    for step in range(7):
        grads = {name: torch.randn(leaf.shape, generator=random).to(dtype) for name, leaf in params.items()}
        rollout = torch.tensor([step == 3, step == 5, False])
        updates, state = optimizer.update(grads, state, params, rollout_start=rollout)
        params = apply_updates(params, updates)
    return params


OPTIONS: list[Mapping[str, Any]] = [
    {},
    {"max_grad_norm": 1.0, "max_grad_value": 0.4},
    {"max_layer_norm": 0.7, "centralize": True},
    {"reset_moments": "rollout"},
    {"reset_step": 2},
]
BEHIND: list[Mapping[str, Any]] = [{"lookahead_steps": 3}, {"cautious": True, "trac": True, "trac_s_prev": 0.1}]
"""Not behind optimizers that keep account of their own steps."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer_name", [name for name in list_optimizers() if name not in ("npg", "trpo", "soap")])
def test_compiled_optimizers_do_what_they_do_on_tensors(
    optimizer_name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = OPTIONS if make(optimizer_name).eval_params else [*OPTIONS, *BEHIND]
    compiled = [moved(optimizer_name, options, dtype) for options in cases]
    set_compile_mode(monkeypatch, "off")
    rtol = 1e-5 if dtype is torch.float32 else 1e-13
    atol = 1e-5 if optimizer_name == "muon" else 1e-6  # products of products, which torch.bmm rounds otherwise
    for expected, options in zip(compiled, cases, strict=True):
        for name, leaf in moved(optimizer_name, options, dtype).items():
            torch.testing.assert_close(expected[name], leaf, rtol=rtol, atol=atol)


def swap(grad: Tensor, leaf: Leaf, scalars: Scalars) -> Tensor:
    """Exchange the gradient with the one of the last step."""
    last, leaf.state["last"] = leaf.state["last"], grad
    return last


@pytest.mark.parametrize("mode", ["kernels", "off"])
def test_a_step_may_exchange_gradient_and_state(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_compile_mode(monkeypatch, mode)
    params = {"p": torch.zeros(2, 3)}
    optimizer = chain(Transform(swap, leaf_state={"last": 0.0}), scale_by_rate(1.0))
    state, grads = optimizer.init(params), torch.zeros(2, 3)
    for step in range(1, 4):
        updates, state = optimizer.update({"p": grads.fill_(step)}, state, params)
        assert torch.equal(updates["p"], torch.full((2, 3), 1.0 - step))


def test_leaves_of_two_dtypes_and_any_strides() -> None:
    params = {"a": torch.randn(4, 3, 2).transpose(0, 2), "b": torch.randn(2, 5).double()}
    optimizer = make("adam", weight_decay=0.1)
    state = optimizer.init(params)
    state["leaf_state"]["m"]["a"] = torch.zeros(4, 3, 2).transpose(0, 2)
    updates, _ = optimizer.update({"a": params["a"] * 2, "b": params["b"] * 3}, state, params)
    for name, leaf in updates.items():
        assert leaf.dtype == params[name].dtype
        torch.testing.assert_close(leaf, -1e-3 * params[name].sign(), rtol=1e-4, atol=0.0)


UNWRITTEN: dict[str, Function] = {
    "erf(|is not among)": lambda a, b, c: torch.erf(a),
    "'TracedScalar' object has no attribute 'mul_'": lambda a, b, c: a.mul_(c),
    "use torch.where": lambda a, b, c: a if a > b else b,
    "unsupported operand type": lambda a, b, c: a @ c,
}


@pytest.mark.parametrize("says", UNWRITTEN)
def test_a_step_that_cannot_be_compiled_is_refused_in_one_line(says: str) -> None:
    with pytest.raises(PgkitError, match=says) as error:
        compute(UNWRITTEN[says], torch.ones(1), torch.ones(1), 1.0)
    assert "elementwise=False" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_step_that_is_not_elementwise_may_use_all_of_torch() -> None:
    optimizer = chain(Transform(lambda grad, leaf, c: grad.exp_().cumsum(1), elementwise=False), scale_by_rate(1.0))
    params = {"p": torch.zeros(2, 3)}
    updates, _ = optimizer.update({"p": torch.zeros(2, 3)}, optimizer.init(params), params)
    assert torch.equal(updates["p"], -torch.tensor([[1.0, 2.0, 3.0]] * 2))


@pytest.mark.parametrize("leaf", [torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.float64), torch.zeros(3)])
def test_a_state_of_other_parameters_is_refused(leaf: Tensor) -> None:
    params, optimizer = {"p": torch.zeros(2, 3)}, make("momentum")
    state = optimizer.init(params)
    state["leaf_state"]["b"]["p"] = leaf
    with pytest.raises(PgkitError, match="the state 'b' of p is"):
        optimizer.update({"p": torch.ones(2, 3)}, state, params)


def test_equal_chains_share_their_code() -> None:
    """Two optimizers that differ only in numbers are compiled once."""
    moved("adam", {}, torch.float32)
    before = compile_module.cache_info().misses
    moved("adam", {"beta1": 0.5}, torch.float32)
    assert compile_module.cache_info().misses == before
