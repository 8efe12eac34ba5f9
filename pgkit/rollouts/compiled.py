"""Rollouts without a visit to Python: every member acts in its environments for all steps, then the next one does.

The numbers are those of acting and stepping one after the other, to the last bit.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pgkit.envs.base import Elementwise, Environments
from pgkit.kernels.activations import Activation
from pgkit.kernels.mlp import allocate_forward
from pgkit.nn.mlp import CachedForward
from pgkit.nn.policy import Policy
from pgkit.system.cpu import use_compiled
from pgkit.types import Params, Rollout


def elementwise(envs: Environments, policy: Policy, params: Params) -> Elementwise | None:
    """How one environment steps, where rollouts of such environments with such a policy are compiled."""
    step = getattr(envs, "elementwise", None)
    fits = policy.head.is_written_down and all(leaf.dtype == torch.float32 for leaf in params.values())
    fits = fits and use_compiled(torch.float32, next(iter(params.values())).device)
    return step if fits else None


class ActingState(NamedTuple):
    """Where members stand in their environments.

    Attributes:
        obs: ``(P, N, D)``, what the environments show.
        members: int64 ``(P,)``; the environments of member k are the N from ``members[k] N`` on.
        keys: int64 ``(P,)``, of the streams of action noise.
        counters: int64 ``(P,)``, of the first number in each stream.
        counts: ``(P, 6, N)``, contiguous, see :mod:`pgkit.rollouts.statistics`; a rollout goes on with them, in place.
        running: bool ``(P, N)``, whether an environment's episode is not over yet; changed in place. The others idle:
            nothing changes in them, and their transitions are none; where all of a member's do, there is 0 everywhere.
            None where all reset by themselves.
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
    envs: Elementwise,
    at: ActingState,
    length: int,
    taped: bool = True,
    deterministic: bool = False,
) -> Rollout:
    """``length`` steps of every member's environments.

    Args:
        policy: with a categorical head.
        params: leaves ``(P, ...)``, float32.
        envs: of all members there are.
        at: where to begin.
        length: T, at least 1.
        taped: the actor's tape is kept for a gradient, see :func:`pgkit.nn.mlp.mlp`.
        deterministic: take the most likely actions.
    """
    size, count, features = at.obs.shape
    blank = torch.empty if at.running is None else torch.zeros
    seen, action = blank(size, length + 1, count, features), blank(size, length, count, dtype=torch.int64)
    reward, ends = blank(size, length, count), blank(3, size, length, count, dtype=torch.bool)
    seen[:, 0] = at.obs
    spec, leaves = policy.acting_layers(params)
    leaves = [leaf.contiguous() for leaf in leaves]
    rows = length * count if taped else count  # one after the other writes to the first of these, in the cache
    network = allocate_forward(spec, torch.Size([size, rows, features]), leaves)
    of_members = [tensor.contiguous() for tensor in (at.members, at.keys, at.counters)]
    running = None if at.running is None else at.running.data_ptr()
    _kernel(envs, spec.activation, policy.head.width, features, taped, deterministic, running is not None)(
        *(length, size, count, *(tensor.data_ptr() for tensor in of_members)),
        *network.outputs.arguments,
        *(tensor.data_ptr() for tensor in (seen, action, reward, ends, at.counts)),
        *(running, *(tensor.data_ptr() for tensor in (*envs.state, *envs.constants, network.workspace))),
    )
    rollout = Rollout(*(tensor.transpose(0, 1) for tensor in (seen, action, reward, *ends)))
    if taped and not policy.shared:
        rollout.tapes["actor"] = CachedForward.of(spec, network.outputs, seen, *leaves)
    return rollout


def _kernel(envs: Elementwise, activation: Activation, width: int, features: int, *how: bool) -> Callable[..., None]:
    dtypes = (tuple(tensor.dtype for tensor in tensors) for tensors in (envs.state, envs.constants))
    return _compiled(activation, width, features, envs.step, *dtypes, *how)


@lru_cache
def _compiled(*spec: Any) -> Callable[..., None]:
    from pgkit.rollouts.codegen import RolloutSpec, compile_rollout  # LLVM is loaded where something is compiled

    return compile_rollout(RolloutSpec(*spec))
