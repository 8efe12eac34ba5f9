"""Generate the code of :mod:`pgkit.rollouts.compiled`: whole rollouts in environments whose step is elementwise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import Column, element_address, elementwise_loop
from pgkit.compiler.ir import (
    BYTE,
    INT,
    Index,
    Variable,
    call,
    define_function,
    element_pointer,
    for_range,
    load,
)
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.codegen.mlp import define_member_forward, table_entry
from pgkit.kernels.signatures import MemberForward
from pgkit.rollouts.signature import RolloutArguments, RolloutSpec
from pgkit.rollouts.statistics import NUM_ENV_STATS, step_env_stats
from pgkit.seeding import uniform

REAL = IR_TYPES[torch.float32]
DOUBLE = IR_TYPES[torch.float64]
FLAG = IR_TYPES[torch.bool]


def compile_rollout(spec: RolloutSpec) -> Callable[..., None]:
    """A kernel of :class:`RolloutArguments`.

    It computes all steps of one member, then those of the next one, so that a member's networks stay in the cache. Once
    all environments of a member idle, its remaining steps are skipped and nothing more is written for it.
    """
    module = ir.Module()
    forward = define_member_forward(module, REAL, spec.activation)
    lengths = {"state": len(spec.state), "constants": len(spec.constants)}
    builder, args = define_function(module, "rollout", RolloutArguments, lengths, alias=True)
    # What a distribution is made of is the result of the last layer, which the forward pass of each step writes.
    network_outputs = table_entry(builder, args.layers.results, args.layers.count - 1)
    any_running = Variable(builder, BYTE)
    with for_range(builder, args.members) as member, for_range(builder, args.steps) as step:
        condition = _if_any_running(args, member, any_running) if spec.episodes else nullcontext()
        with condition:
            at = _Step(builder, spec, args, member, step)
            obs = element_pointer(builder, args.obs, REAL, at.obs_index)
            forward_args = MemberForward(member, args.count, at.output_row, args.layers, obs, args.workspace)
            call(builder, forward, forward_args)
            inputs, outputs = _columns(at, network_outputs)
            elementwise_loop(builder, args.count, inputs, outputs, _acting_step(at))
    builder.ret_void()
    return compile_function(builder.function)


@contextmanager
def _if_any_running(args: RolloutArguments, member: Index, any_running: Variable) -> Iterator[None]:
    """What is written inside is executed if any environment of the member does not idle."""
    builder = any_running.builder
    any_running.set(BYTE(0))
    with for_range(builder, args.count) as env:
        flag = load(builder, BYTE, args.running, member * args.count + env)
        any_running.set(builder.or_(any_running.get(), flag))
    with builder.if_then(builder.icmp_unsigned("!=", any_running.get(), BYTE(0))):
        yield


class _Step(NamedTuple):
    """One step of one member's environments."""

    builder: ir.IRBuilder
    spec: RolloutSpec
    args: RolloutArguments
    member: Index
    step: Index

    @property
    def transition(self) -> Index:
        """The index of the first environment's transition in arrays ``(P, T, N)``."""
        return (self.member * self.args.steps + self.step) * self.args.count

    @property
    def obs_index(self) -> Index:
        """The index of the first environment's observation in ``(P, T + 1, N, D)``: one more time for each member."""
        return (self.transition + self.member * self.args.count) * self.spec.obs_dim

    @property
    def output_row(self) -> Index:
        """The row of the first environment in the layers' outputs, which hold all steps, or only the latest."""
        return self.transition if self.spec.keep_outputs else Index(self.builder, 0)

    def column(self, base: ir.Value, element: ir.Type, first: Index) -> Column:
        """One number of each environment, contiguous from ``base[first]`` on."""
        return Column(element_address(self.builder, base, element, first), element)

    def matrix(self, base: ir.Value, first: Index, width: int) -> list[Column]:
        """The columns of a float32 matrix with contiguous rows, one for each environment, from ``base[first]`` on."""
        start = element_pointer(self.builder, base, REAL, first)
        return [Column(element_pointer(self.builder, start, REAL, column), REAL, width) for column in range(width)]

    def member_number(self, base: ir.Value) -> Index:
        """This member's number in an int64 array ``(P,)``."""
        return Index(self.builder, load(self.builder, INT, base, self.member))


def _columns(at: _Step, network_outputs: ir.Value) -> tuple[list[Column], list[Column]]:
    """What :func:`_acting_step` reads and writes, in its order."""
    spec = at.spec
    args = at.args
    first_env = at.member_number(args.member_indices) * args.count
    state, constants = (
        [at.column(base, IR_TYPES[dtype], first_env) for base, dtype in zip(bases, dtypes, strict=True)]
        for bases, dtypes in ((args.state, spec.state), (args.constants, spec.constants))
    )
    member_env = at.member * args.count
    env_stats = [
        at.column(args.env_stats, DOUBLE, member_env * NUM_ENV_STATS + args.count * k) for k in range(NUM_ENV_STATS)
    ]
    all_transitions = args.steps * (args.members * args.count)
    flags = [at.column(args.flags, FLAG, at.transition + all_transitions * k) for k in range(3)]
    next_obs = at.matrix(args.obs, at.obs_index + args.count * spec.obs_dim, spec.obs_dim)
    inputs = [*env_stats, *_distribution_columns(at, network_outputs), *state, *constants]
    reward = at.column(args.reward, REAL, at.transition)
    outputs = [*env_stats, *_action_columns(at), *state, *next_obs, reward, *flags]
    if spec.episodes:
        running = at.column(args.running, FLAG, member_env)
        inputs += [*at.matrix(args.obs, at.obs_index, spec.obs_dim), running]
        outputs.append(running)
    return inputs, outputs


def _distribution_columns(at: _Step, network_outputs: ir.Value) -> list[Column]:
    """The outputs of each environment's action distribution: those of the network, then those of the member."""
    distribution = at.spec.distribution
    log_stds = [
        Column(element_pointer(at.builder, at.args.log_std, REAL, at.member * distribution.size + k), REAL, 0)
        for k in range(distribution.log_stds)
    ]
    return [*at.matrix(network_outputs, at.output_row * distribution.size, distribution.size), *log_stds]


def _action_columns(at: _Step) -> list[Column]:
    """Where the numbers of each environment's action are written."""
    distribution = at.spec.distribution
    if not distribution.log_stds:
        return [at.column(at.args.action, INT, at.transition)]
    return at.matrix(at.args.action, at.transition * distribution.size, distribution.size)


def _acting_step(at: _Step) -> Callable[..., list[Any]]:
    """One environment's step: act, step, count; the function that is traced.

    ``(env, *env_stats, *distribution, *state, *constants) -> [*env_stats, *action, *state, *next_obs, reward,
    terminated, truncated, valid]``; with ``episodes`` it also takes ``*obs, running`` and gives ``running``.
    """
    spec = at.spec
    act = _acting(at)
    width = spec.distribution.size + spec.distribution.log_stds

    def step(env: TracedScalar, *numbers: Any) -> list[Any]:
        env_stats = numbers[:NUM_ENV_STATS]
        rest = numbers[NUM_ENV_STATS + width :]
        env_arguments = rest[: len(spec.state) + len(spec.constants)]
        action = act(env, numbers[NUM_ENV_STATS : NUM_ENV_STATS + width])
        transition = spec.step(*action, *env_arguments)
        if not spec.episodes:
            return [*step_env_stats(*env_stats, *transition[-4:]), *action, *transition]
        *obs, running = rest[len(env_arguments) :]
        transition = _unless_idle(running, transition, [*rest[: len(spec.state)], *obs])
        still_running = running & ~(transition[-3] | transition[-2])
        return [*step_env_stats(*env_stats, *transition[-4:]), *action, *transition, still_running]

    return step


def _acting(at: _Step) -> Callable[[TracedScalar, Sequence[Any]], list[Any]]:
    """``act(env, outputs) -> action`` of one environment, its numbers: a sample, or the mode."""
    distribution = at.spec.distribution
    width = distribution.action_width
    key = at.member_number(at.args.keys)
    # The numbers of a stream go to all components of an action, in all environments of one step, then of the next one.
    counter = at.member_number(at.args.counters) + at.step * at.args.count * width

    def act(env: TracedScalar, outputs: Sequence[Any]) -> list[Any]:
        actions: list[Any]
        if at.spec.deterministic:
            actions = distribution.functions.mode(outputs)
        else:
            first: Any = env * width + env.splat(counter.ir_value)
            stream: Any = env.splat(key.ir_value)
            actions = distribution.functions.sample(outputs, [uniform(stream, first + k) for k in range(width)])
        return actions

    return act


def _unless_idle(running: Any, transition: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """The transition of an environment that is running; of one that idles, its old state and observation, and zeros."""
    *after, reward, terminated, truncated, valid = transition
    state_and_obs = [torch.where(running, new, old) for new, old in zip(after, before, strict=True)]
    flags = [running & flag for flag in (terminated, truncated, valid)]
    return [*state_and_obs, torch.where(running, reward, 0.0), *flags]
