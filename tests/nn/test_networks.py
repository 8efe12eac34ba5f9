"""Layer norm, GRU, CNNs and modules of one's own, each against torch's layers, member by member."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from helpers.own_networks import OwnNet
from torch import Tensor, nn

from pgkit.errors import PgkitError
from pgkit.nn.cnn import MinAtarCNN, NatureCNN, ToChannels
from pgkit.nn.distributions import categorical
from pgkit.nn.gru import GRU, sequences
from pgkit.nn.module_network import ModuleNetwork
from pgkit.nn.network import LayerNormMLP, Network
from pgkit.nn.policy import Policy
from pgkit.seeding import stream_keys, uniform
from pgkit.tree import take_tree
from pgkit.types import Params

SEEDS = (0, 1, 2, 3, 4)


def numbers(seed: int, *shape: int) -> Tensor:
    count = int(np.prod(shape))
    return (uniform(stream_keys([seed], "action"), torch.arange(count)) * 4 - 2).view(shape)


def perturbed(network: Network) -> Params:
    """Parameters that are zero nowhere."""
    params = network.init("net", SEEDS, 3)
    return {name: leaf + 0.1 * numbers(len(name), *leaf.shape) for name, leaf in params.items()}


def test_layer_norm_is_torchs() -> None:
    network = LayerNormMLP(5, (7, 6), "gelu", (1.0, 1.0))
    params = perturbed(network)
    x = numbers(1, len(SEEDS), 11, 5)
    features = network.apply(params, "net", x)
    for member in range(len(SEEDS)):
        hidden = x[member]
        for layer in (0, 1):
            leaf = {
                name: params[f"net.{layer}.{name}"][member] for name in ("weight", "bias", "norm.weight", "norm.bias")
            }
            hidden = hidden @ leaf["weight"] + leaf["bias"]
            norm = (leaf["norm.weight"].squeeze(0), leaf["norm.bias"].squeeze(0))
            hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:], *norm)
            hidden = nn.functional.gelu(hidden, approximate="tanh")
        torch.testing.assert_close(features[member], hidden, rtol=1e-5, atol=1e-6)


def test_the_gru_is_torchs_and_forgets_where_an_episode_begins() -> None:
    network = GRU(inputs=3, hidden_size=5)
    params = perturbed(network)
    steps, envs = 6, 4
    obs = numbers(1, steps, len(SEEDS), envs, 3)
    memory = numbers(2, len(SEEDS), envs, 5)
    begins = torch.zeros(steps, len(SEEDS), envs, dtype=torch.bool)
    begins[3, :, 1] = True
    x = sequences(obs, memory, begins).transpose(0, 1).flatten(1, 2)
    features = network.apply(params, "net", x).view(len(SEEDS), steps, envs, 5)
    for member in range(len(SEEDS)):
        cell = nn.GRUCell(3, 5)
        names = {
            "weight_ih": "input.weight",
            "weight_hh": "memory.weight",
            "bias_ih": "input.bias",
            "bias_hh": "memory.bias",
        }
        cell.load_state_dict({ours: params[f"net.{name}"][member].mT.squeeze(-1) for ours, name in names.items()})
        state = memory[member]
        for step in range(steps):
            state = torch.where(begins[step, member, :, None], 0.0, state)
            state = cell(obs[step, member], state)
            torch.testing.assert_close(features[member, step], state, rtol=1e-5, atol=1e-6)


def test_the_gru_steps_as_it_goes_over_sequences() -> None:
    network = GRU(inputs=3, hidden_size=5)
    params = perturbed(network)
    obs = numbers(1, 4, len(SEEDS), 2, 3)
    memory = torch.zeros(len(SEEDS), 2, 5)
    x = sequences(obs, memory, torch.zeros(4, len(SEEDS), 2, dtype=torch.bool)).transpose(0, 1).flatten(1, 2)
    features = network.apply(params, "net", x).view(len(SEEDS), 4, 2, 5)
    for step in range(4):
        memory = network.step(params, "net", obs[step], memory)
        assert torch.equal(memory, features[:, step])


@pytest.mark.parametrize(
    ("shape", "channels"),
    [((84, 84, 3), 3), ((3, 84, 84), 3), ((4, 84, 84), 4), ((4, 84, 84, 3), 12), ((84, 84), 1), ((10, 12, 6), 6)],
)
def test_images_become_channels(shape: tuple[int, ...], channels: int) -> None:
    """Of every layout: row 0, column 1 of each frame and colour stands there in each channel."""
    image = ToChannels(Box(0, 255, shape, np.uint8))
    x = torch.zeros(1, *shape)
    rows = [axis for axis, side in enumerate(shape) if side >= 10]
    place = tuple(0 if axis == rows[0] else 1 if axis == rows[1] else slice(None) for axis in range(len(shape)))
    x[0][place] = 255.0
    y = image(x)
    assert y.shape[1] == channels
    assert (y[0, :, 0, 1] == 1.0).all()
    assert y.sum() == channels


def test_natures_network_has_the_published_layers() -> None:
    network = NatureCNN(Box(0, 255, (4, 84, 84), np.uint8))
    shapes = [tuple(leaf.shape) for leaf in network.parameters() if leaf.dim() > 1]
    assert shapes == [(32, 4, 8, 8), (64, 32, 4, 4), (64, 64, 3, 3), (512, 3136)]


def test_a_module_is_each_members_own() -> None:
    network = ModuleNetwork.of(OwnNet, Box(-1.0, 1.0, (4,)), {"width": 6})
    params = network.init("net", SEEDS, 3)
    x = numbers(1, len(SEEDS), 7, 4)
    features = network.apply(params, "net", x)
    for member, seed in enumerate(SEEDS):
        module = OwnNet(Box(-1.0, 1.0, (4,)), width=6)
        module.load_state_dict({name: params[f"net.{name}"][member] for name in module.state_dict()})
        torch.testing.assert_close(features[member], module(x[member]))
        alone = network.init("net", [seed], 3)
        assert all(torch.equal(alone[name][0], leaf[member]) for name, leaf in params.items())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.Dropout()), "Dropout"),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), "BatchNorm1d"),
        (lambda: nn.Flatten(), "no parameters"),
        (lambda: nn.Linear(5, 8), "RuntimeError"),
        (lambda: nn.Sequential(nn.Linear(4, 8), nn.Flatten(0)), r"must return features \(B, F\), got \(16,\)"),
    ],
)
def test_modules_that_cannot_work_are_refused(layers: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(PgkitError, match=message) as error:
        ModuleNetwork.of(lambda space: layers(), Box(-1.0, 1.0, (4,)), {})
    assert "policy.network" in str(error.value)
    assert "\n" not in str(error.value)


NETWORKS: dict[str, tuple[Network, int]] = {
    "layer norm": (LayerNormMLP(3, (7, 5), "tanh", (1.0, 1.0)), 3),
    "gru": (GRU(1, 5), 8),  # D + M + 2
    "module": (ModuleNetwork.of(OwnNet, Box(-1.0, 1.0, (3,)), {"width": 7}), 3),
    "minatar": (ModuleNetwork.of(MinAtarCNN, Box(0, 1, (5, 5, 2)), {"features": 9}), 50),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_member_has_the_same_bits_alone(name: str) -> None:
    """Features and gradients; the sizes fill no register of the processor."""
    network, width = NETWORKS[name]
    x = numbers(1, len(SEEDS), 11, width)
    if name == "gru":
        x[..., -2:] = 0.0
    expected = _features_and_gradients(network, perturbed(network), x)
    for member in range(len(SEEDS)):
        rows = torch.tensor([member])
        alone = _features_and_gradients(network, take_tree(perturbed(network), rows), x[rows])
        for together, one in zip(expected, alone, strict=True):
            assert together.any()
            assert torch.equal(together[rows], one)


def _features_and_gradients(network: Network, params: Params, x: Tensor) -> list[Tensor]:
    leaves = {name: leaf.clone().requires_grad_() for name, leaf in params.items()}
    features = network.apply(leaves, "net", x)
    return [features.detach(), *torch.autograd.grad(features.square().sum(), list(leaves.values()))]


@pytest.mark.parametrize("shared", [True, False])
def test_losses_of_a_policy_with_a_network_are_those_of_its_outputs_and_values(shared: bool) -> None:
    from pgkit.losses import actor_critic_terms
    from pgkit.types import Batch

    network = LayerNormMLP(3, (7,), "tanh", (1.0,))
    policy = Policy(
        3,
        categorical(4),
        hidden=(),
        critic_hidden=(),
        shared=shared,
        network=network,
        critic_network=None if shared else network,
    )
    params = {name: leaf + 0.3 * numbers(len(name), *leaf.shape) for name, leaf in policy.init(SEEDS).items()}
    assert ("network.0.weight" in params) == shared
    column = numbers(3, len(SEEDS), 6)
    batch = Batch(
        obs=numbers(1, len(SEEDS), 6, 3),
        action=torch.arange(6).remainder(4).expand(len(SEEDS), 6),
        advantage=column,
        target=column + 1,
        valid=torch.ones(len(SEEDS), 6, dtype=torch.bool),
    )
    outputs = policy.outputs(params, batch.obs)
    head = policy.head
    expected = actor_critic_terms(
        head.log_prob(outputs, batch.action),
        head.entropy(outputs),
        policy.value(params, batch.obs),
        batch.advantage,
        batch.target,
        batch.valid,
    )
    losses = policy.losses(params, batch)
    for tag, term in zip(("loss/policy", "loss/value", "policy/entropy"), expected, strict=True):
        torch.testing.assert_close(losses[tag], term)
