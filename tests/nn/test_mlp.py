"""Stacked networks: initial weights, the layers' arithmetic, and members that do not depend on each other."""

from itertools import pairwise

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.kernels.activations import ACTIVATIONS
from pgkit.nn.mlp import forward_pass, init_mlp, layer_count, mlp
from pgkit.seeding import stream_keys, uniform
from pgkit.types import Params

POPULATIONS = (1, 2, 5, 64)
SHAPES = [(1, 1), (1, 2), (2, 1), (3, 1), (1, 64), (4, 64), (64, 64), (64, 1), (65, 3)]


def numbers(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def keys(members: int) -> Tensor:
    return stream_keys(range(members), "weights")


@pytest.mark.parametrize(("fan_in", "fan_out"), SHAPES)
@pytest.mark.parametrize("gain", [1.0, 2**0.5, 0.01])
def test_orthogonal_weights_are_orthogonal_times_gain(fan_in: int, fan_out: int, gain: float) -> None:
    weight = init_mlp("net", keys(3), [fan_in, fan_out], [gain])["net.0.weight"]
    assert weight.shape == (3, fan_in, fan_out)
    tall = weight if fan_in >= fan_out else weight.mT
    identity = torch.eye(tall.shape[2]).expand(3, -1, -1)
    torch.testing.assert_close(tall.mT @ tall / gain**2, identity, atol=1e-5, rtol=0)


def test_orthogonal_weights_have_no_preferred_direction() -> None:
    """Over many members every entry of a uniform orthogonal 3 x 3 matrix has mean 0 and mean square 1/3."""
    members = 2000
    weight = init_mlp("net", keys(members), [3, 3], [1.0])["net.0.weight"].double()
    assert weight.mean(0).abs().max() < 4 * (1 / 3 / members) ** 0.5
    assert (weight.square().mean(0) - 1 / 3).abs().max() < 4 * (4 / 45 / members) ** 0.5
    assert abs(torch.linalg.det(weight).mean()) < 4 / members**0.5  # as many reflections as rotations


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_other_weights_are_normal_with_lecuns_deviation(gain: float) -> None:
    weight = init_mlp("net", keys(5), [100, 200], [gain], orthogonal=False)["net.0.weight"].double()
    scaled = weight * 100**0.5 / gain
    assert abs(scaled.mean()) < 4 / 100_000**0.5
    assert abs(scaled.square().mean() - 1) < 4 * (2 / 100_000) ** 0.5
    assert abs(scaled.pow(4).mean() - 3) < 4 * (96 / 100_000) ** 0.5


@pytest.mark.parametrize("orthogonal", [True, False])
def test_initial_weights_are_a_function_of_the_members_own_seed(orthogonal: bool) -> None:
    sizes, gains = [4, 64, 64, 1], [2**0.5, 2**0.5, 1.0]
    together = init_mlp("net", keys(64), sizes, gains, orthogonal)
    for member in (0, 1, 63):
        alone = init_mlp("net", keys(64)[member : member + 1], sizes, gains, orthogonal)
        assert alone.keys() == together.keys()
        assert all(torch.equal(alone[name][0], together[name][member]) for name in alone)
    weight = together["net.1.weight"].flatten(1)
    assert len(weight.unique(dim=0)) == 64


def test_layers_of_one_network_are_different() -> None:
    params = init_mlp("net", keys(1), [8, 8, 8], [1.0, 1.0])
    assert layer_count(params, "net") == 2
    assert layer_count(params, "other") == 0
    assert not torch.equal(params["net.0.weight"], params["net.1.weight"])
    assert not params["net.0.bias"].any()
    assert params["net.0.bias"].shape == (1, 1, 8)


def test_as_many_gains_as_layers() -> None:
    with pytest.raises(ValueError, match="zip"):
        init_mlp("net", keys(1), [4, 8, 2], [1.0])


@pytest.mark.parametrize(("fan_in", "fan_out"), SHAPES)
def test_one_layer_is_a_matrix_product_and_a_bias(fan_in: int, fan_out: int) -> None:
    x, weight, bias = numbers(0, 3, 10, fan_in), numbers(1, 3, fan_in, fan_out), numbers(2, 3, 1, fan_out)
    expected = torch.einsum("pbi,pio->pbo", x.double(), weight.double()) + bias.double()
    given = mlp({"net.0.weight": weight, "net.0.bias": bias}, "net", x, "tanh")
    torch.testing.assert_close(given.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("activate_last", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1), (3, 1), (4, 5, 2), (2, 1, 3), (3, 32, 32, 1)])
def test_first_and_second_derivatives(activation: str, activate_last: bool, sizes: tuple[int, ...]) -> None:
    """Against finite differences, for the input and every leaf."""
    names = [f"net.{layer}.{part}" for layer in range(len(sizes) - 1) for part in ("weight", "bias")]
    shapes = [shape for fan_in, out in pairwise(sizes) for shape in ((2, fan_in, out), (2, 1, out))]
    leaves = [numbers(seed, *shape, dtype=torch.float64).requires_grad_() for seed, shape in enumerate(shapes)]
    x = numbers(99, 2, 2, sizes[0], dtype=torch.float64).requires_grad_()

    def network(x: Tensor, *leaves: Tensor) -> Tensor:
        return mlp(dict(zip(names, leaves, strict=True)), "net", x, activation, activate_last)

    assert torch.autograd.gradcheck(network, (x, *leaves), fast_mode=True)
    if activation != "relu":  # whose second derivative is 0 wherever there is one
        assert torch.autograd.gradgradcheck(network, (x, *leaves), fast_mode=True)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_compiled_passes_are_those_on_tensors(activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and gradients, those of the input too, by batched products as on GPUs."""
    params = {name: leaf.requires_grad_() for name, leaf in init_mlp("net", keys(3), [5, 33, 7, 2], [1.5] * 3).items()}
    x = numbers(0, 3, 11, 5).requires_grad_()

    def passes() -> list[Tensor]:
        outputs = mlp(params, "net", x, activation)
        return [outputs.detach(), *torch.autograd.grad(outputs.square().sum(), [x, *params.values()])]

    compiled = passes()
    set_compile_mode(monkeypatch, "off")
    for actual, other in zip(compiled, passes(), strict=True):
        torch.testing.assert_close(actual, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 4, 3), (3, 4, 5), (3, 5)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected an input \(P, B, in\)"):
        mlp(init_mlp("net", keys(3), [3, 4, 1], [1.0, 1.0]), "net", numbers(0, *shape), "tanh")


def test_an_input_of_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected an input of torch\.float32"):
        mlp(init_mlp("net", keys(3), [3, 4, 1], [1.0, 1.0]), "net", numbers(0, 3, 4, 3).double(), "tanh")


def test_a_network_without_layers_gives_its_input() -> None:
    x = numbers(0, 2, 3, 4)
    assert mlp({}, "trunk", x, "tanh", activate_last=True) is x


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("activate_last", [True, False])
def test_mlp_is_the_torch_network_of_each_member(activation: str, activate_last: bool) -> None:
    params = init_mlp("net", keys(3), [5, 7, 1], [1.5, 1.0])
    params = {name: leaf + 0.1 * numbers(len(name), *leaf.shape) for name, leaf in params.items()}
    x = numbers(9, 3, 11, 5)
    modules = {
        "tanh": torch.nn.Tanh(),
        "relu": torch.nn.ReLU(),
        "elu": torch.nn.ELU(),
        "gelu": torch.nn.GELU(approximate="tanh"),
        "silu": torch.nn.SiLU(),
    }
    outputs = mlp(params, "net", x, activation, activate_last)
    assert outputs.shape == (3, 11, 1)
    for member in range(3):
        activate = modules[activation]
        last = activate if activate_last else torch.nn.Identity()
        module = torch.nn.Sequential(torch.nn.Linear(5, 7), activate, torch.nn.Linear(7, 1), last)
        module.load_state_dict(
            {
                f"{2 * layer}.{part}": params[f"net.{layer}.{part}"][member].mT.squeeze(1 if part == "bias" else ())
                for layer in (0, 1)
                for part in ("weight", "bias")
            }
        )
        torch.testing.assert_close(outputs[member], module(x[member]), atol=1e-6, rtol=1e-5)


def forward_and_backward(params: Params, x: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of a loss of all of them."""
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    outputs = mlp(leaves, "net", x, "tanh")
    return [outputs.detach(), *torch.autograd.grad(outputs.square().sum(), list(leaves.values()))]


@pytest.mark.parametrize("sizes", [(4, 64, 64, 2), (4, 64, 1), (1, 16, 1), (3, 1, 1, 2), (8, 5), (4, 30, 50, 2)])
@pytest.mark.parametrize("batch", [1, 3, 8, 160])
def test_a_member_has_the_same_bits_in_every_population(sizes: tuple[int, ...], batch: int) -> None:
    """Forward and backward, at the first and the last place."""
    members = max(POPULATIONS)
    params = init_mlp("net", keys(members), sizes, [1.0] * (len(sizes) - 1))
    x = uniform(keys(members)[:, None, None], torch.arange(batch * sizes[0]).view(1, batch, -1))
    expected = forward_and_backward(params, x)
    for size in POPULATIONS:
        for start in {0, members - size}:
            rows = slice(start, start + size)
            result = forward_and_backward({name: leaf[rows] for name, leaf in params.items()}, x[rows])
            assert all(torch.equal(a, b[rows]) for a, b in zip(result, expected, strict=True)), (size, start)


def test_a_cached_pass_is_used_in_place_of_another() -> None:
    """Also for fewer rows of each member; never for more rows or other members, which a pass does not have."""
    params, x = init_mlp("net", keys(3), [4, 5, 2], [1.0, 1.0]), numbers(0, 3, 9, 4)
    cached = forward_pass(params, "net", x[:, :6], "tanh")
    expected = mlp(params, "net", x[:, :6], "tanh")
    assert torch.equal(cached.results[-1], expected)
    cached.results[-1].add_(100.0)  # to be recognised
    for rows in (6, 4):
        outputs = mlp(params, "net", x[:, :rows], "tanh", cached=cached)
        assert torch.equal(outputs, expected[:, :rows] + 100.0)
    for other in (x, x[:2, :6]):
        with pytest.raises(ValueError, match="cannot serve an input"):
            mlp(params, "net", other, "tanh", cached=cached)
