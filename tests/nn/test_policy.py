"""Action distributions against torch.distributions, and what a policy's networks give and learn."""

from collections.abc import Callable

import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal, kl_divergence

from pgkit.errors import PgkitError
from pgkit.nn.distributions import Head, bernoulli, categorical, gaussian, head_for, multi_categorical
from pgkit.nn.policy import Policy
from pgkit.seeding import stream_keys, uniform
from pgkit.types import Rollout

CHOICES = (3, 2, 4)
Reference = Callable[[Tensor], list[Distribution]]

# Each head, and torch's distribution of its components.
HEADS: dict[str, tuple[Head, Reference]] = {
    "categorical": (categorical(5), lambda o: [Categorical(logits=o)]),
    "one action": (categorical(1), lambda o: [Categorical(logits=o)]),
    "multi-categorical": (
        multi_categorical(CHOICES),
        lambda o: [Categorical(logits=part) for part in o.split(CHOICES, -1)],
    ),
    "bernoulli": (bernoulli(3), lambda o: [Bernoulli(logits=part) for part in o.unbind(-1)]),
    "gaussian": (gaussian(2), lambda o: [Independent(Normal(o[..., :2], o[..., 2:].exp()), 1)]),
}


def outputs_of(head: Head, seed: int = 0, scale: float = 2.0, shape: tuple[int, ...] = (3, 7)) -> Tensor:
    return scale * torch.randn(*shape, head.width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise(count: int, head: Head, seed: int = 0) -> Tensor:
    return uniform(stream_keys([seed], "action"), torch.arange(count * head.noise)).view(count, head.noise).double()


def components(name: str, action: Tensor) -> list[Tensor]:
    """The action as torch's components see it."""
    return [action.double()] if name in ("categorical", "one action", "gaussian") else list(action.double().unbind(-1))


@pytest.fixture(params=HEADS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_log_prob_is_torchs(name: str) -> None:
    head, reference = HEADS[name]
    outputs = outputs_of(head)
    action = head.sample(outputs, noise(21, head).view(3, 7, -1))
    pairs = zip(reference(outputs), components(name, action), strict=True)
    expected = torch.stack([part.log_prob(value) for part, value in pairs]).sum(0)
    assert head.log_prob(outputs, action).shape == (3, 7)
    torch.testing.assert_close(head.log_prob(outputs, action), expected)


def test_entropy_is_torchs(name: str) -> None:
    head, reference = HEADS[name]
    outputs = outputs_of(head)
    expected = torch.stack([part.entropy() for part in reference(outputs)]).sum(0)
    assert head.entropy(outputs).shape == (3, 7)
    torch.testing.assert_close(head.entropy(outputs), expected)


def test_kl_is_torchs_and_zero_from_itself(name: str) -> None:
    head, reference = HEADS[name]
    outputs, other = outputs_of(head), outputs_of(head, seed=1)
    pairs = zip(reference(outputs), reference(other), strict=True)
    expected = torch.stack([kl_divergence(a, b) for a, b in pairs]).sum(0)
    torch.testing.assert_close(head.kl(outputs, other), expected)
    torch.testing.assert_close(head.kl(outputs, outputs), torch.zeros(3, 7, dtype=torch.float64))


def test_far_out_numbers_stay_finite(name: str) -> None:
    """Logits of 100 in float32: certain actions, not NaN."""
    head, _ = HEADS[name]
    outputs = outputs_of(head).float() * (10 if name == "gaussian" else 100)
    action = head.mode(outputs)
    numbers = [head.log_prob(outputs, action), head.entropy(outputs)]
    assert all(number.isfinite().all() for number in numbers)


def test_mode_has_the_highest_probability(name: str) -> None:
    head, _ = HEADS[name]
    outputs = outputs_of(head)
    mode, best = head.mode(outputs), head.log_prob(outputs, head.mode(outputs))
    for seed in range(20):
        action = head.sample(outputs, noise(21, head, seed).view(3, 7, -1))
        assert action.shape == mode.shape
        assert action.dtype == mode.dtype
        assert (head.log_prob(outputs, action) <= best).all()


@pytest.mark.parametrize("name", [name for name in HEADS if name != "gaussian"], indirect=True)
def test_discrete_samples_have_the_right_frequencies(name: str) -> None:
    """Chi-square of each component with bounds of about 1e-4, from uniform numbers of a fixed stream."""
    head, reference = HEADS[name]
    outputs, count = outputs_of(head, scale=0.7, shape=(1,)), 20_000
    action = head.sample(outputs.expand(count, -1), noise(count, head))
    assert action.dtype == torch.int64
    for part, drawn in zip(reference(outputs), components(name, action), strict=True):
        two = torch.stack([1 - part.probs, part.probs], -1) if isinstance(part, Bernoulli) else part.probs
        expected = two.flatten() * count
        counts = torch.bincount(drawn.long(), minlength=len(expected)).double()
        assert len(counts) == len(expected)
        free = len(expected) - 1
        assert ((counts - expected).square() / expected).sum() <= free + 4 * (2 * free) ** 0.5 + 5 * (free > 0)


@pytest.mark.parametrize("name", ["multi-categorical", "bernoulli"], indirect=True)
def test_components_are_drawn_independently(name: str) -> None:
    head, _ = HEADS[name]
    count = 20_000
    drawn = head.sample(torch.zeros(count, head.width), noise(count, head)).double()
    correlation = torch.corrcoef(drawn.T) - torch.eye(drawn.shape[1])
    assert correlation.abs().max() < 4 / count**0.5


def test_gaussian_samples_are_normal() -> None:
    """Kolmogorov-Smirnov distance from each component's distribution, bound at 1e-3; components uncorrelated."""
    head, count = gaussian(2), 20_000
    outputs = torch.tensor([1.5, -2.0, 0.3, -1.0], dtype=torch.float64)
    drawn = head.sample(outputs.expand(count, -1), noise(count, head))
    ranks = torch.arange(count, dtype=torch.float64)
    for a in range(2):
        exact = Normal(outputs[a], outputs[2 + a].exp()).cdf(drawn[:, a].sort().values)
        distance = torch.maximum((exact - ranks / count).max(), ((ranks + 1) / count - exact).max())
        assert distance < 1.95 / count**0.5
    assert torch.corrcoef(drawn.T)[0, 1].abs() < 4 / count**0.5


def test_sampling_inverts_the_distribution_function() -> None:
    """Uniform numbers just below and above each step of the distribution function take the neighbouring actions."""
    head, outputs = categorical(3), torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
    draws = torch.tensor([0.01, 0.19, 0.21, 0.69, 0.71, 0.99], dtype=torch.float64)
    assert head.sample(outputs.expand(6, 3), draws[:, None]).tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("number", [2.0**-24, 1 - 2.0**-24])
def test_the_outermost_uniform_numbers_are_actions_too(name: str, number: float) -> None:
    head, _ = HEADS[name]
    outputs = outputs_of(head).float()
    action = head.sample(outputs, torch.full((3, 7, head.noise), number))
    assert head.log_prob(outputs, action).isfinite().all()


@pytest.mark.parametrize(
    ("space", "family", "width", "components"),
    [
        (spaces.Discrete(4), "categorical", 4, 1),
        (spaces.Discrete(4, start=-2), "categorical", 4, 1),
        (spaces.MultiDiscrete([3, 2]), "multi-categorical", 5, 2),
        (spaces.MultiDiscrete([[3, 2], [2, 4]]), "multi-categorical", 11, 4),
        (spaces.MultiBinary(3), "bernoulli", 3, 3),
        (spaces.MultiBinary([2, 2]), "bernoulli", 4, 4),
        (spaces.Box(-1.0, 1.0, (3,)), "gaussian", 6, 3),
        (spaces.Box(-1.0, 1.0, (2, 3)), "gaussian", 12, 6),
    ],
)
def test_every_supported_space_has_its_head(space: spaces.Space, family: str, width: int, components: int) -> None:
    head = head_for(space)
    assert (head.name, head.width, head.noise) == (family, width, components)


@pytest.mark.parametrize("space", [spaces.Text(5), spaces.Dict({"a": spaces.Discrete(2)})])
def test_other_spaces_are_told_in_one_line(space: spaces.Space) -> None:
    with pytest.raises(PgkitError, match="not supported: use Discrete, Box, MultiDiscrete or MultiBinary") as caught:
        head_for(space)
    assert str(space) in str(caught.value)
    assert "\n" not in str(caught.value)


POLICIES = {
    "separate": Policy(4, categorical(3), hidden=(16, 8), critic_hidden=(12,)),
    "shared": Policy(4, categorical(3), hidden=(16, 8), shared=True),
    "linear": Policy(4, categorical(3), hidden=(), critic_hidden=()),
    "gaussian": Policy(4, gaussian(2), hidden=(16,), log_std=-0.5),
    "shared gaussian": Policy(4, gaussian(2), hidden=(16,), shared=True),
    "multi-categorical": Policy(4, multi_categorical(CHOICES), hidden=(16,)),
    "bernoulli": Policy(4, bernoulli(3), hidden=(16,), activation="relu"),
}


@pytest.fixture(params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return POLICIES[request.param]


def observations(*shape: int) -> Tensor:
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(3))


def test_separate_networks_share_no_parameter_and_a_trunk_is_shared() -> None:
    separate, shared = POLICIES["separate"].init([0]), POLICIES["shared"].init([0])
    shapes = {name: tuple(leaf.shape[1:]) for name, leaf in separate.items() if name.endswith("weight")}
    assert shapes == {
        "actor.0.weight": (4, 16),
        "actor.1.weight": (16, 8),
        "actor.2.weight": (8, 3),
        "critic.0.weight": (4, 12),
        "critic.1.weight": (12, 1),
    }
    shapes = {name: tuple(leaf.shape[1:]) for name, leaf in shared.items() if name.endswith("weight")}
    assert shapes == {
        "trunk.0.weight": (4, 16),
        "trunk.1.weight": (16, 8),
        "actor.0.weight": (8, 3),
        "critic.0.weight": (8, 1),
    }


@pytest.mark.parametrize("networks", ["separate", "shared"])
def test_what_the_losses_reach(networks: str) -> None:
    """The value reaches the critic, and the actor only through a trunk."""
    policy = POLICIES[networks]
    params = {name: leaf.requires_grad_() for name, leaf in policy.init([0, 1]).items()}
    value = policy.value(params, observations(2, 5))
    grads = torch.autograd.grad(value.square().sum(), list(params.values()), materialize_grads=True)
    reached = {name.split(".")[0] for name, grad in zip(params, grads, strict=True) if grad.any()}
    assert reached == ({"critic"} if networks == "separate" else {"critic", "trunk"})


def test_shapes_of_outputs_and_values(policy: Policy) -> None:
    params, obs = policy.init([0, 1, 2]), observations(3, 5)
    assert policy.outputs(params, obs).shape == (3, 5, policy.head.width)
    assert policy.value(params, obs).shape == (3, 5)


def test_new_policies_are_nearly_uniform_and_their_spread_is_as_set(policy: Policy) -> None:
    """The actor's last layer starts a hundred times smaller than the others."""
    outputs = policy.outputs(policy.init(range(5)), observations(5, 50))
    if policy.head.name == "gaussian":
        outputs, log_std = outputs.chunk(2, -1)
        assert (log_std == policy.log_std).all()
    assert outputs.abs().max() < 0.2
    assert outputs.abs().max() > 0


def test_initial_parameters_are_a_function_of_the_seed(policy: Policy) -> None:
    together, alone = policy.init([4, 7]), policy.init([7])
    assert all(torch.equal(alone[name][0], together[name][1]) for name in together)
    assert any(not torch.equal(leaf[0], leaf[1]) for leaf in together.values())


def test_the_log_probability_moves_every_parameter_of_the_actor(policy: Policy) -> None:
    params = {name: leaf.requires_grad_() for name, leaf in policy.init([0, 1]).items()}
    obs = observations(2, 40)
    outputs = policy.outputs(params, obs)
    draws = uniform(stream_keys([0, 1], "action")[:, None, None], torch.arange(40 * policy.head.noise).view(40, -1))
    action = policy.head.sample(outputs.detach(), draws)
    weight = torch.linspace(-1, 2, 40)
    log_prob = (policy.head.log_prob(outputs, action) * weight).sum()
    grads = torch.autograd.grad(log_prob, list(params.values()), materialize_grads=True)
    for name, grad in zip(params, grads, strict=True):
        assert grad.isfinite().all()
        moved = grad.flatten(1).any(1).tolist()
        assert moved == ([False, False] if name.startswith("critic.") else [True, True]), name


def rollout_of(obs: Tensor, final_obs: Tensor | None, terminated: Tensor, truncated: Tensor) -> Rollout:
    zeros = torch.zeros(terminated.shape)
    return Rollout(obs, zeros.long(), zeros, terminated, truncated, torch.ones_like(terminated), final_obs)


@pytest.mark.parametrize("networks", ["separate", "shared"])
def test_values_of_a_rollout_look_at_the_true_next_observation(networks: str) -> None:
    policy, (steps, members, count) = POLICIES[networks], (6, 3, 2)
    params, obs, final = policy.init(range(members)), observations(7, members, count), observations(6, members, count)
    terminated = torch.zeros(steps, members, count, dtype=torch.bool)
    truncated = terminated.clone()
    terminated[2, 1, 0] = truncated[4, 2, 1] = truncated[5, 0, 0] = True

    def value(t: int, k: int, n: int, source: Tensor) -> Tensor:
        single = {name: leaf[k : k + 1] for name, leaf in params.items()}
        return policy.value(single, source[t, k, n].view(1, 1, -1))[0, 0]

    for final_obs in (None, final):
        now, following, _ = policy.values(params, rollout_of(obs, final_obs, terminated, truncated))
        assert now.shape == following.shape == (steps, members, count)
        for t in range(steps):
            for k in range(members):
                for n in range(count):
                    over = bool(terminated[t, k, n] | truncated[t, k, n]) and final_obs is not None
                    expected = value(t, k, n, final) if over else value(t + 1, k, n, obs)
                    torch.testing.assert_close(now[t, k, n], value(t, k, n, obs))
                    torch.testing.assert_close(following[t, k, n], expected)
