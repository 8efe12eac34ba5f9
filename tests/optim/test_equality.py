"""Every optimizer against an independent implementation, step by step, over a grid of hyperparameters.

The grid is one population: each member has hyperparameters of its own and is compared with a reference of its own.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pgkit.optim import apply_updates, make
from pgkit.types import Params

STEPS = 120
GUIDED_STEPS = 40  # each is checked by itself
SHAPES = {"weight": (7, 5), "bias": (1, 5)}
RATES = (1e-6, 1e-2, 1e3)
EPSILONS = (1e-8, 1e-3)
Options = Mapping[str, Any]


def grid(**axes: tuple[float, ...]) -> list[Options]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def betas(options: Options) -> Options:
    """Put both betas into one tuple, as PyTorch takes them."""
    rest = {key: value for key, value in options.items() if key not in ("beta1", "beta2")}
    return {**rest, "betas": (options["beta1"], options["beta2"])}


class Case(NamedTuple):
    """An optimizer, torch's class, the hyperparameters of each member, and how to say them to torch."""

    name: str
    reference: Callable[..., torch.optim.Optimizer]
    members: list[Options]
    to_torch: Callable[[Options], Options] = dict
    flags: Options = MappingProxyType({})
    guided_leaf_state: Options = MappingProxyType({})  # set to torch's at each guided step: our name, torch's name


ADAM = {"lr": RATES, "beta1": (0.0, 0.9), "beta2": (0.9, 0.999), "eps": EPSILONS}
CASES = {
    "sgd": Case("sgd", torch.optim.SGD, grid(lr=RATES, weight_decay=(0.0, 1e-3))),
    "momentum": Case(
        "momentum",
        torch.optim.SGD,
        grid(lr=RATES, momentum=(0.0, 0.5, 0.9), dampening=(0.0, 0.3), weight_decay=(0.0, 1e-3)),
    ),
    "nesterov": Case(
        "nesterov",
        torch.optim.SGD,
        grid(lr=RATES, momentum=(0.5, 0.9), weight_decay=(0.0, 1e-3)),
        lambda o: {**o, "nesterov": True},
    ),
    "rmsprop": Case(
        "rmsprop",
        torch.optim.RMSprop,
        grid(lr=RATES, alpha=(0.9, 0.99), eps=EPSILONS, momentum=(0.0, 0.9), weight_decay=(0.0, 0.1)),
    ),
    "rmsprop centered": Case(
        "rmsprop",
        torch.optim.RMSprop,
        grid(lr=RATES, alpha=(0.9, 0.99), eps=EPSILONS, momentum=(0.0, 0.9)),
        lambda o: {**o, "centered": True},
        {"centered": True},
    ),
    "adagrad": Case(
        "adagrad",
        torch.optim.Adagrad,
        grid(
            lr=RATES,
            lr_decay=(0.0, 0.1),
            initial_accumulator_value=(0.0, 0.1),
            eps=(1e-10, 1e-3),
            weight_decay=(0.0, 0.1),
        ),
    ),
    "adadelta": Case(
        "adadelta",
        torch.optim.Adadelta,
        grid(lr=RATES, rho=(0.5, 0.9), eps=(1e-6, 1e-3), weight_decay=(0.0, 0.1)),
        # d is multiplied by steps that depend on it, so errors in its last bit stay; torch's float32 roots have some.
        guided_leaf_state={"d": "acc_delta"},
    ),
    "adam": Case("adam", torch.optim.Adam, grid(**ADAM, weight_decay=(0.0, 0.1)), betas),
    "amsgrad": Case("amsgrad", torch.optim.Adam, grid(**ADAM), lambda o: {**betas(o), "amsgrad": True}),
    "adamw": Case("adamw", torch.optim.AdamW, grid(**{**ADAM, "beta1": (0.9,)}, weight_decay=(0.0, 1e-4)), betas),
    "nadam": Case("nadam", torch.optim.NAdam, grid(**{**ADAM, "beta1": (0.9,)}, momentum_decay=(0.0, 4e-3)), betas),
    "radam": Case("radam", torch.optim.RAdam, grid(**ADAM), betas),
    "adamax": Case("adamax", torch.optim.Adamax, grid(**ADAM), betas),
}


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """The dtype of parameters, while the default dtype, in which PyTorch keeps some numbers, is float64."""
    torch.set_default_dtype(torch.float64)
    yield request.param
    torch.set_default_dtype(torch.float32)


def gradients(members: int, dtype: torch.dtype, steps: int) -> Iterator[Params]:
    """Draw gradients with scales from 1e-6 to 1e2, one element in twenty zero, one in fifty denormal."""
    random = torch.Generator().manual_seed(0)
    scale = {name: 10 ** (torch.rand(shape, generator=random) * 8 - 6) for name, shape in SHAPES.items()}
    tiny = torch.finfo(dtype).smallest_normal / 8
    for _ in range(steps):
        grads = {}
        for name, shape in SHAPES.items():
            grad = torch.randn(members, *shape, generator=random) * scale[name]
            draw = torch.rand(members, *shape, generator=random)
            grad = torch.where(draw < 0.05, 0.0, torch.where(draw > 0.98, grad.sign() * tiny, grad))
            grads[name] = grad.to(dtype)
        assert all(leaf.abs().max() > 1 for leaf in grads.values())
        yield grads


def initial_params(members: int, dtype: torch.dtype) -> Params:
    random = torch.Generator().manual_seed(1)
    return {name: torch.randn(members, *shape, generator=random).to(dtype) for name, shape in SHAPES.items()}


def differences(case: Case, dtype: torch.dtype, guided: bool) -> dict[bool, float]:
    """Measure the largest difference to the reference, relative to the largest value of that parameter so far.

    Args:
        case: an optimizer and its reference.
        dtype: of the parameters.
        guided: start each step at the reference's parameters; else errors add up over all steps. Members with weight
            decay are always guided: an adaptive step towards 0 at an absurd rate overshoots, and doubles any error.

    Returns:
        The difference for members without (False) and with weight decay (True).
    """
    members = len(case.members)
    params = initial_params(members, dtype)
    torch_params = [[leaf[k].clone().requires_grad_() for leaf in params.values()] for k in range(members)]
    references = [
        case.reference(leaves, foreach=False, **case.to_torch(dict(options)))
        for leaves, options in zip(torch_params, case.members, strict=True)
    ]
    decays = torch.tensor([options.get("weight_decay", 0.0) > 0 for options in case.members])
    optimizer = make(case.name, **case.flags, **{key: [o[key] for o in case.members] for key in case.members[0]})
    state = optimizer.init(params)
    largest = {name: leaf.abs() for name, leaf in params.items()}
    worst = torch.zeros(members)
    for grads in gradients(members, dtype, GUIDED_STEPS if guided else STEPS):
        for k, (leaves, reference) in enumerate(zip(torch_params, references, strict=True)):
            for leaf, grad in zip(leaves, grads.values(), strict=True):
                leaf.grad = grad[k]
            reference.step()
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        for place, name in enumerate(SHAPES):
            expected = torch.stack([leaves[place].detach() for leaves in torch_params])
            largest[name] = torch.maximum(largest[name], expected.abs())
            error = ((params[name] - expected).abs() / largest[name]).flatten(1).amax(1)
            worst = torch.maximum(worst, error)
            assert error.isfinite().all()
            params[name] = torch.where((decays | guided)[:, None, None], expected, params[name])
            for key, torch_key in case.guided_leaf_state.items() if guided else ():
                pairs = zip(references, torch_params, strict=True)
                tensors = [reference.state[leaves[place]][torch_key] for reference, leaves in pairs]
                state["leaf_state"][key][name] = torch.stack(tensors)
    return {decay: worst[decays == decay].max().item() for decay in decays.unique().tolist()}


ULPS = 6
"""Allowed error of each float32 step, in units in the last place of the parameter's largest value."""


@pytest.mark.parametrize("name", CASES)
def test_optimizer_equals_torch_step_by_step(name: str, dtype: torch.dtype) -> None:
    worst = differences(CASES[name], dtype, guided=dtype is torch.float32)
    for difference in worst.values():
        if dtype is torch.float32:
            assert difference <= ULPS * torch.finfo(dtype).eps
        else:
            assert difference <= 1e-12


def run(name: str, grads: np.ndarray, **options: Any) -> np.ndarray:
    """Return the parameters after each step, ``(steps, K)``: float64, one member, from zero."""
    params = {"p": torch.zeros(1, grads.shape[1], dtype=torch.float64)}
    optimizer = make(name, **options)
    path = []
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update({"p": torch.from_numpy(grad)[None]}, state, params)
        params = apply_updates(params, updates)
        path.append(params["p"][0].numpy())
    return np.stack(path)


def some_gradients(steps: int = STEPS, size: int = 12) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.standard_normal((steps, size)) * 10.0 ** random.uniform(-4, 2, size)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("eps", [1e-10, 1e-3])
def test_rmsprop_tf_equals_the_tensorflow_rule(centered: bool, momentum: float, eps: float) -> None:
    """``training_ops.cc``, ApplyRMSProp and ApplyCenteredRMSProp: ms from 1, eps in the root, momentum behind lr."""
    grads, lr, rho = some_gradients(), 0.03, 0.9
    var, ms, mg, mom = (np.full(grads.shape[1], first) for first in (0.0, 1.0, 0.0, 0.0))
    path = []
    for grad in grads:
        ms += (grad**2 - ms) * (1 - rho)
        mg += (grad - mg) * (1 - rho) * centered
        mom = momentum * mom + lr * grad / np.sqrt(ms - mg**2 + eps)
        var = var - mom
        path.append(var)
    path_of_pgkit = run("rmsprop_tf", grads, lr=lr, alpha=rho, eps=eps, momentum=momentum, centered=centered)
    np.testing.assert_allclose(path_of_pgkit, np.stack(path), rtol=1e-12, atol=1e-12 * np.abs(path).max())


def test_lion_equals_its_formula() -> None:
    grads, lr, beta1, beta2, decay = some_gradients(), 0.01, 0.9, 0.99, 0.1
    p, m, path = np.zeros(grads.shape[1]), np.zeros(grads.shape[1]), []
    for grad in grads:
        p = p - lr * (np.sign(beta1 * m + (1 - beta1) * grad) + decay * p)
        m = beta2 * m + (1 - beta2) * grad
        path.append(p)
    path_of_pgkit = run("lion", grads, lr=lr, beta1=beta1, beta2=beta2, weight_decay=decay)
    np.testing.assert_allclose(path_of_pgkit, np.stack(path), rtol=1e-12, atol=1e-15)


def test_radam_equals_its_formula() -> None:
    """In extended precision, so that the reference is exact where float64 cancels."""
    grads, lr, eps = some_gradients(), 0.01, 1e-8
    one = np.longdouble(1)
    beta1, beta2 = np.longdouble(0.9), np.longdouble(0.999)
    p, m, v = (np.zeros(grads.shape[1], np.longdouble) for _ in range(3))
    path = []
    for t, grad in enumerate(grads.astype(np.longdouble), 1):
        m, v = beta1 * m + (1 - beta1) * grad, beta2 * v + (1 - beta2) * grad**2
        most = 2 / (1 - beta2) - 1
        length = most - 2 * t * beta2**t / (1 - beta2**t)
        step = m / (1 - beta1**t)
        if length > 5:
            ratio = (length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length)
            step = step * np.sqrt(ratio * (one - beta2**t)) / (np.sqrt(v) + eps)
        p = p - lr * step
        path.append(p.astype(np.float64))
    path_of_pgkit = run("radam", grads, lr=lr, eps=eps)
    np.testing.assert_allclose(path_of_pgkit, np.stack(path), rtol=0, atol=1e-12 * np.abs(path).max())


FIRST_STEPS = {
    "sgd": ({}, [0.1] * 5),
    "momentum": ({"momentum": 0.9}, [0.1, 0.19, 0.271, 0.3439, 0.40951]),
    "rmsprop": ({"alpha": 0.99, "eps": 1e-8}, [1.0, 0.708881, 0.580249, 0.503767, 0.451708]),
    "rmsprop_tf": ({}, [0.1] * 5),
    "adam": ({}, [0.1] * 5),
}


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_steps_under_a_constant_gradient(name: str) -> None:
    options, expected = FIRST_STEPS[name]
    path = run(name, np.ones((5, 1)), lr=0.1, **options)[:, 0]
    np.testing.assert_allclose(-np.diff(path, prepend=0.0), expected, rtol=1e-6)


def test_momentum_zero_is_sgd_bit_for_bit() -> None:
    grads = some_gradients()
    assert np.array_equal(run("momentum", grads, lr=0.1, momentum=0.0), run("sgd", grads, lr=0.1))


def test_adam_with_a_huge_epsilon_is_bias_corrected_momentum() -> None:
    grads, eps, beta1 = some_gradients(50), 1e12, 0.9
    m, p, path = np.zeros(grads.shape[1]), np.zeros(grads.shape[1]), []
    for t, grad in enumerate(grads, 1):
        m = beta1 * m + (1 - beta1) * grad
        p = p - 0.1 / eps * m / (1 - beta1**t)
        path.append(p)
    np.testing.assert_allclose(run("adam", grads, lr=0.1, eps=eps), np.stack(path), rtol=1e-8)


def test_adam_without_memory_and_epsilon_is_the_sign() -> None:
    grads = some_gradients(20)
    path = run("adam", grads, lr=0.1, beta1=0.0, beta2=0.0, eps=0.0)
    np.testing.assert_allclose(path, -0.1 * np.sign(grads).cumsum(0), rtol=0, atol=1e-14)


def test_beta_zero_takes_the_gradient_as_it_is() -> None:
    """m = beta1 m + (1 - beta1) g must not lose g beside a huge m."""
    grads = np.array([[1e20], [1.0]])
    assert np.diff(run("adamax", grads, lr=1.0, beta1=0.0, beta2=0.0, eps=0.0)[:, 0]) == -1.0


def test_a_tensor_of_hyperparameters_is_as_good_as_numbers() -> None:
    grads = some_gradients(10)
    by_tensor = run("adam", grads, lr=torch.tensor([0.1]), beta1=torch.tensor([0.8], dtype=torch.float64))
    expected: Tensor = torch.from_numpy(run("adam", grads, lr=torch.tensor(0.1).item(), beta1=0.8))
    assert np.array_equal(by_tensor, expected.numpy())
