"""The policy that a configuration describes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pgkit.config.effects import check_actions
from pgkit.config.schema import TrainConfig
from pgkit.config.tables import PolicyConfig
from pgkit.envs.base import EnvInfo
from pgkit.envs.observations import check_no_image, network_space
from pgkit.errors import PgkitError, unknown_name
from pgkit.nn.distributions import head_for
from pgkit.nn.gru import GRU
from pgkit.nn.network import LayerNormMLP, Network
from pgkit.nn.policy import Policy, default_gains
from pgkit.system.imports import import_object

if TYPE_CHECKING:
    from gymnasium.spaces import Box

NETWORKS = ("mlp", "nature-cnn", "minatar-cnn", "gru")
"""What ``policy.network`` names, beside modules."""


def build_policy(config: TrainConfig, info: EnvInfo) -> Policy:
    """Make the policy of a configuration for such environments.

    Raises:
        PgkitError: a setting has no effect there, the network cannot be made, or it would not learn.
    """
    check_actions(config, info.action_space)
    settings = config.policy
    hidden = settings.hidden
    critic_hidden = hidden if settings.critic_hidden is None else settings.critic_hidden
    network, critic_network = _networks(settings, info, hidden, critic_hidden)
    if settings.layer_norm:  # the network has the hidden layers; what is left is the last one
        gains, critic_gains = (each and each[-1:] for each in (settings.gains, settings.critic_gains))
        hidden = critic_hidden = ()
    else:
        gains, critic_gains = settings.gains, settings.critic_gains
    return Policy(
        obs_dim=info.obs_dim,
        head=head_for(
            info.action_space, squash=settings.squash_output, state_dependent_std=settings.state_dependent_std
        ),
        hidden=hidden,
        critic_hidden=critic_hidden,
        activation=settings.activation,
        shared=settings.shared,
        orthogonal=settings.orthogonal,
        log_std=settings.log_std,
        gains=gains,
        critic_gains=critic_gains,
        network=network,
        critic_network=critic_network,
    )


def _networks(
    settings: PolicyConfig, info: EnvInfo, hidden: tuple[int, ...], critic_hidden: tuple[int, ...]
) -> tuple[Network | None, Network | None]:
    """What stands before the layers of actor and critic; the second is None if they share the first."""
    if settings.network == "mlp":
        if info.observation_space is not None:
            check_no_image(info.observation_space, info.name)
        if not settings.layer_norm:
            return None, None
        actor = _layer_norm_mlp(settings, info.obs_dim, hidden, settings.gains)
        return actor, None if settings.shared else _layer_norm_mlp(
            settings, info.obs_dim, critic_hidden, settings.critic_gains
        )
    network = _network(settings, info)
    return network, None if settings.shared else network


def _layer_norm_mlp(
    settings: PolicyConfig, inputs: int, hidden: tuple[int, ...], gains: tuple[float, ...] | None
) -> LayerNormMLP:
    gains = default_gains(len(hidden), 1.0) if gains is None else gains
    return LayerNormMLP(inputs, hidden, settings.activation, gains[:-1], settings.orthogonal)


def _network(settings: PolicyConfig, info: EnvInfo) -> Network:
    """The network that ``policy.network`` names."""
    name = settings.network
    kwargs = settings.network_kwargs
    if name == "gru":
        return _gru(info.obs_dim, **_checked_kwargs(kwargs, ("hidden_size",)))
    # Modules take a moment to import, which policies without them need not wait for.
    from pgkit.nn import cnn
    from pgkit.nn.module_network import ModuleNetwork

    space: Box = network_space(info.observation_space, info.obs_dim)
    classes: dict[str, Callable[..., Any]] = {"nature-cnn": cnn.NatureCNN, "minatar-cnn": cnn.MinAtarCNN}
    if name in classes:
        return ModuleNetwork.of(classes[name], space, _checked_kwargs(kwargs, ("features",)))
    if ":" not in name:
        raise PgkitError(unknown_name("policy.network", name, NETWORKS, or_else="a module: package.module:Class"))
    return ModuleNetwork.of(import_object(name, "policy.network"), space, kwargs)


def _gru(inputs: int, hidden_size: int = 64) -> GRU:
    return GRU(inputs, hidden_size)


def _checked_kwargs(kwargs: dict[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of pgkit's own networks: sizes.

    Raises:
        PgkitError: an argument is unknown, or no size.
    """
    for key, value in kwargs.items():
        if key not in allowed:
            raise PgkitError(unknown_name("key of policy.network_kwargs", key, allowed))
        if type(value) is not int or not 1 <= value <= 1_000_000:
            raise PgkitError(f"policy.network_kwargs.{key} must be a whole number from 1 on, got {value!r}")
    return kwargs
