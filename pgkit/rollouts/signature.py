"""What :mod:`pgkit.rollouts.compiled` and the generator of its code, :mod:`pgkit.rollouts.codegen`, share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from pgkit.compiler.signature import Address, Int64
from pgkit.kernels.activations import Activation
from pgkit.kernels.distribution import Distribution
from pgkit.kernels.signatures import Layers


class TracedStep(NamedTuple):
    """A step that is traced, see :class:`pgkit.envs.base.Elementwise`.

    Attributes:
        function: the step of one environment.
        state: the dtypes of the environments' state.
        constants: the dtypes of their constants.
    """

    function: Callable[..., list[Any]]
    state: tuple[torch.dtype, ...]
    constants: tuple[torch.dtype, ...]


class BlockStep(NamedTuple):
    """A step of a block of environments, see :class:`pgkit.envs.base.EnvKernel`.

    Attributes:
        define: adds its function to a module.
        row_bytes: the size of one environment in each tensor of the state.
    """

    define: Callable[[Any], Any]
    row_bytes: tuple[int, ...]


class RolloutSpec(NamedTuple):
    """What the code of a rollout depends on.

    Attributes:
        activation: of the policy's networks.
        distribution: of the actions.
        obs_dim: D.
        step: of the environments.
        keep_outputs: the outputs of all layers are stored for all steps of all members; otherwise every step overwrites
            those of the step before.
        deterministic: take the mode of the distribution instead of a sample.
        episodes: an environment idles when its episode is over; otherwise it resets itself.
    """

    activation: Activation
    distribution: Distribution
    obs_dim: int
    step: TracedStep | BlockStep
    keep_outputs: bool
    deterministic: bool
    episodes: bool


class RolloutArguments(NamedTuple):
    """The arguments of a compiled rollout: T steps of the N environments of P members.

    Attributes:
        steps: T.
        members: P.
        count: N.
        member_indices: int64 ``(P,)``; the environments of member k are the N from ``member_indices[k] N`` on.
        keys: int64 ``(P,)``, the random stream of each member's action noise.
        counters: int64 ``(P,)``, the position of the first number in each stream.
        layers: of the policy.
        log_std: float32 ``(P, 1, A)`` of a Gaussian policy; null for other distributions.
        obs: float32 ``(P, T + 1, N, D)``, of which the first N of each member are read, the others written.
        action: int64 ``(P, T, N)``, or float32 ``(P, T, N, A)`` of a Gaussian policy, written.
        reward: float32 ``(P, T, N)``, written.
        flags: bool ``(3, P, T, N)``, written: terminated, truncated, valid.
        env_stats: float64 ``(P, NUM_ENV_STATS, N)``, see :mod:`pgkit.rollouts.statistics`; updated.
        running: bool ``(P, N)``, whether an environment does not idle; updated. Null if environments reset themselves.
        state: of all environments ``(K,)``; updated.
        constants: of all environments ``(K,)``.
        workspace: of the matmuls of one member.
    """

    steps: Int64
    members: Int64
    count: Int64
    member_indices: Address
    keys: Address
    counters: Address
    layers: Layers
    log_std: Address
    obs: Address
    action: Address
    reward: Address
    flags: Address
    env_stats: Address
    running: Address
    state: tuple[Address, ...]
    constants: tuple[Address, ...]
    workspace: Address
