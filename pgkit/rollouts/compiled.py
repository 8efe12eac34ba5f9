"""Rollouts without Python between steps: a compiled loop over members, steps and environments.

The numbers are those of acting and stepping one after the other, to the last bit.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from pgkit.compiler.lazy import lazy_kernel
from pgkit.compiler.signature import address_of, flatten
from pgkit.envs.base import CompiledEnvs, Elementwise, Environments
from pgkit.kernels.activations import Activation
from pgkit.kernels.distribution import Distribution
from pgkit.kernels.mlp import allocate_forward
from pgkit.nn.policy import Policy
from pgkit.rollouts.signature import BlockStep, RolloutArguments, RolloutSpec, TracedStep
from pgkit.system.cpu import use_compiled
from pgkit.types import ForwardCache, Params, Rollout

_kernel = lazy_kernel("pgkit.rollouts.codegen:compile_rollout")


def compiled_envs(envs: Environments, policy: Policy, params: Params) -> CompiledEnvs | None:
    """The environments' compiled form, if rollouts in them with this policy can be compiled; else None."""
    step = getattr(envs, "elementwise", None) or getattr(envs, "kernel", None)
    float32 = all(leaf.dtype == torch.float32 for leaf in params.values())
    on_cpu = use_compiled(torch.float32, next(iter(params.values())).device)
    return step if policy.distribution is not None and float32 and on_cpu else None


class ActingState(NamedTuple):
    """Where a rollout begins.

    Attributes:
        obs: ``(P, N, D)``, the current observations.
        members: int64 ``(P,)``; the environments of member k are the N from ``members[k] N`` on.
        keys: int64 ``(P,)``, the random stream of each member's action noise.
        counters: int64 ``(P,)``, the position of the next number in each stream.
        counts: ``(P, 6, N)``, contiguous, see :mod:`pgkit.rollouts.statistics`; updated in place.
        running: bool ``(P, N)``, whether the current episode of an environment is not over; updated in place. In the
            other environments nothing changes and their transitions are not valid; where all environments of a member
            idle, everything in the rollout is 0. None for environments that reset themselves.
    """

    obs: Tensor
    members: Tensor
    keys: Tensor
    counters: Tensor
    counts: Tensor
    running: Tensor | None = None


def compiled_rollout(
    policy: Policy,
    params: Params,
    envs: CompiledEnvs,
    at: ActingState,
    length: int,
    keep_outputs: bool = True,
    deterministic: bool = False,
) -> Rollout:
    """Act for ``length`` steps in the environments of every member.

    Args:
        policy: with a distribution that kernels are compiled for.
        params: leaves ``(P, ...)``, float32.
        envs: of all members there are.
        at: where the rollout begins.
        length: T, at least 1.
        keep_outputs: keep the outputs of all layers of the policy as the rollout's cache, for the gradient.
        deterministic: take the most likely actions.
    """
    distribution = policy.distribution
    assert distribution is not None  # or nobody would call this, see :func:`compiled_envs`
    members, count, features = at.obs.shape
    obs, action, reward, flags = _allocate(distribution, at, length)
    mlp_spec, leaves = policy.acting_layers(params)
    leaves = [leaf.contiguous() for leaf in leaves]
    log_std = params["actor.log_std"].contiguous() if distribution.log_stds else None
    # Outputs that nobody needs afterwards are overwritten step by step and member by member, so they stay in the cache.
    rows = length * count if keep_outputs else count
    network = allocate_forward(mlp_spec, torch.Size([members, rows, features]), leaves)
    assert network.outputs.arguments is not None
    acting = [tensor.contiguous() for tensor in (at.members, at.keys, at.counters)]
    arguments = RolloutArguments(
        steps=length,
        members=members,
        count=count,
        member_indices=acting[0].data_ptr(),
        keys=acting[1].data_ptr(),
        counters=acting[2].data_ptr(),
        layers=network.outputs.arguments,
        log_std=address_of(log_std),
        obs=obs.data_ptr(),
        action=action.data_ptr(),
        reward=reward.data_ptr(),
        flags=flags.data_ptr(),
        env_stats=at.counts.data_ptr(),
        running=address_of(at.running),
        state=tuple(tensor.data_ptr() for tensor in envs.state),
        constants=tuple(tensor.data_ptr() for tensor in envs.constants),
        workspace=network.workspace.data_ptr(),
    )
    spec = _rollout_spec(distribution, mlp_spec.activation, envs, at, keep_outputs, deterministic)
    _kernel(spec)(*flatten(arguments))
    rollout = Rollout(*(tensor.transpose(0, 1) for tensor in (obs, action, reward, *flags)))
    if keep_outputs and not policy.shared:
        rollout = replace(rollout, cache=ForwardCache(rollout.obs, {"actor": network.outputs}))
    return rollout


def _allocate(distribution: Distribution, at: ActingState, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Observations, of which the first are those of ``at``, actions, rewards and flags of a rollout of so many steps.

    Zeros for whole episodes, because nothing is written for members whose environments all idle.
    """
    members, count, features = at.obs.shape
    allocate = torch.empty if at.running is None else torch.zeros
    obs = allocate(members, length + 1, count, features)
    action_shape = distribution.action_shape((members, length, count))
    action = allocate(action_shape, dtype=distribution.action_dtype(torch.float32))
    reward = allocate(members, length, count)
    flags = allocate(3, members, length, count, dtype=torch.bool)
    obs[:, 0] = at.obs
    return obs, action, reward, flags


def _rollout_spec(
    distribution: Distribution,
    activation: Activation,
    envs: CompiledEnvs,
    at: ActingState,
    keep_outputs: bool,
    deterministic: bool,
) -> RolloutSpec:
    """What the code of this rollout depends on."""
    return RolloutSpec(
        activation=activation,
        distribution=distribution,
        obs_dim=at.obs.shape[2],
        step=_step_spec(envs),
        keep_outputs=keep_outputs,
        deterministic=deterministic,
        episodes=at.running is not None,
    )


def _step_spec(envs: CompiledEnvs) -> TracedStep | BlockStep:
    if isinstance(envs, Elementwise):
        dtypes = (tuple(tensor.dtype for tensor in part) for part in (envs.state, envs.constants))
        return TracedStep(envs.step, *dtypes)
    return BlockStep(envs.define, tuple(tensor[0].nbytes for tensor in envs.state))
