"""Generate the code of :mod:`pgkit.rollouts.compiled`: whole rollouts in environments that are compiled.

A step of a member's environments is one loop over them if the step of one environment is traced: sample an action,
step, count. If environments step as a block, acting is a loop, then the block steps, and counting is a second loop.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import Column, element_address, elementwise_loop
from pgkit.compiler.ir import (
    BYTE,
    INT,
    NULL,
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
from pgkit.envs.signature import EnvStepArguments
from pgkit.kernels.codegen.mlp import define_member_forward, table_entry
from pgkit.kernels.signatures import MemberForward
from pgkit.rollouts.signature import BlockStep, RolloutArguments, RolloutSpec, TracedStep
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
    step_block = spec.step.define(module) if isinstance(spec.step, BlockStep) else None
    builder, args = define_function(module, "rollout", RolloutArguments, _lengths(spec.step), alias=True)
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
            if step_block is None:
                _step_elements(at, network_outputs)
            else:
                _step_block(at, network_outputs, step_block)
    builder.ret_void()
    return compile_function(builder.function)


def _lengths(step: TracedStep | BlockStep) -> dict[str, int]:
    """How many tensors the state and the constants of environments are."""
    if isinstance(step, TracedStep):
        return {"state": len(step.state), "constants": len(step.constants)}
    return {"state": len(step.row_bytes), "constants": 0}


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

    @property
    def first_env(self) -> Index:
        """The member's first environment among all there are."""
        return self.member_number(self.args.member_indices) * self.args.count

    @property
    def env_stats(self) -> list[Column]:
        first = self.member * self.args.count * NUM_ENV_STATS
        return [self.column(self.args.env_stats, DOUBLE, first + self.args.count * k) for k in range(NUM_ENV_STATS)]

    @property
    def obs(self) -> list[Column]:
        """The observations that actions are chosen from."""
        return self.matrix(self.args.obs, self.obs_index, self.spec.obs_dim)

    @property
    def next_obs(self) -> list[Column]:
        return self.matrix(self.args.obs, self.obs_index + self.args.count * self.spec.obs_dim, self.spec.obs_dim)

    @property
    def action(self) -> list[Column]:
        """The numbers of each environment's action."""
        distribution = self.spec.distribution
        if distribution.is_discrete:
            return [self.column(self.args.action, INT, self.transition)]
        return self.matrix(self.args.action, self.transition * distribution.size, distribution.size)

    @property
    def reward(self) -> Column:
        return self.column(self.args.reward, REAL, self.transition)

    @property
    def flags(self) -> list[Column]:
        """Terminated, truncated, valid."""
        all_transitions = self.args.steps * (self.args.members * self.args.count)
        return [self.column(self.args.flags, FLAG, self.transition + all_transitions * k) for k in range(3)]

    @property
    def running(self) -> Column:
        return self.column(self.args.running, FLAG, self.member * self.args.count)

    def distribution_outputs(self, network_outputs: ir.Value) -> list[Column]:
        """The outputs of each environment's action distribution: those of the network, then those of the member."""
        distribution = self.spec.distribution
        width = distribution.network_outputs
        log_stds = [
            Column(element_pointer(self.builder, self.args.log_std, REAL, self.member * distribution.size + k), REAL, 0)
            for k in range(distribution.log_stds)
        ]
        outputs = self.matrix(network_outputs, self.output_row * width, width)
        return [*outputs, *log_stds]

    def member_number(self, base: ir.Value) -> Index:
        """This member's number in an int64 array ``(P,)``."""
        return Index(self.builder, load(self.builder, INT, base, self.member))


def _step_elements(at: _Step, network_outputs: ir.Value) -> None:
    """Act, step and count in one loop; the step of one environment is traced."""
    spec, args, step = at.spec, at.args, at.spec.step
    assert isinstance(step, TracedStep)
    first_env = at.first_env
    state, constants = (
        [at.column(base, IR_TYPES[dtype], first_env) for base, dtype in zip(bases, dtypes, strict=True)]
        for bases, dtypes in ((args.state, step.state), (args.constants, step.constants))
    )
    inputs = [*at.env_stats, *at.distribution_outputs(network_outputs), *state, *constants]
    outputs = [*at.env_stats, *at.action, *state, *at.next_obs, at.reward, *at.flags]
    if spec.episodes:
        inputs += [*at.obs, at.running]
        outputs.append(at.running)
    act = _acting(at)
    width = spec.distribution.num_outputs

    def act_and_step(env: TracedScalar, *numbers: Any) -> list[Any]:
        env_stats, outputs, rest = _split(numbers, NUM_ENV_STATS, width)
        env_arguments = rest[: len(state) + len(constants)]
        action = act(env, outputs)
        transition = step.function(*action, *env_arguments)
        if not spec.episodes:
            return [*step_env_stats(*env_stats, *transition[-4:]), *action, *transition]
        *obs, running = rest[len(env_arguments) :]
        transition = _unless_idle(running, transition, [*rest[: len(state)], *obs])
        still_running = running & ~(transition[-3] | transition[-2])
        return [*step_env_stats(*env_stats, *transition[-4:]), *action, *transition, still_running]

    elementwise_loop(at.builder, args.count, inputs, outputs, act_and_step)


def _step_block(at: _Step, network_outputs: ir.Value, step_block: ir.Function) -> None:
    """Act in a loop, step all environments of the member by one call, and count in a second loop."""
    builder, spec, args = at.builder, at.spec, at.args
    assert isinstance(spec.step, BlockStep)
    act = _acting(at)
    outputs = at.distribution_outputs(network_outputs)
    elementwise_loop(builder, args.count, outputs, at.action, lambda env, *numbers: act(env, numbers))
    terminated, truncated, valid = (column.base for column in at.flags)
    state = [
        element_pointer(builder, base, BYTE, at.first_env * row_bytes)
        for base, row_bytes in zip(args.state, spec.step.row_bytes, strict=True)
    ]
    step_args = EnvStepArguments(
        count=args.count,
        running=at.running.base if spec.episodes else NULL,
        action=at.action[0].base,
        obs=at.next_obs[0].base,
        reward=at.reward.base,
        terminated=terminated,
        truncated=truncated,
        valid=valid,
        state=tuple(state),
    )
    call(builder, step_block, step_args)
    transition = [*at.next_obs, at.reward, *at.flags]
    if not spec.episodes:
        counted = [at.reward, *at.flags]
        elementwise_loop(
            builder,
            args.count,
            [*at.env_stats, *counted],
            at.env_stats,
            lambda env, *numbers: step_env_stats(*numbers),
        )
        return

    def count(env: TracedScalar, *numbers: Any) -> list[Any]:
        env_stats, before, rest = _split(numbers, NUM_ENV_STATS, spec.obs_dim)
        after = _unless_idle(rest[-1], rest[:-1], before)
        still_running = rest[-1] & ~(after[-3] | after[-2])
        return [*step_env_stats(*env_stats, *after[-4:]), *after, still_running]

    inputs = [*at.env_stats, *at.obs, *transition, at.running]
    elementwise_loop(builder, args.count, inputs, [*at.env_stats, *transition, at.running], count)


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


def _split(numbers: Sequence[Any], *sizes: int) -> list[Sequence[Any]]:
    """Parts of these sizes, and the rest."""
    ends = [0, *accumulate(sizes)]
    return [numbers[start:end] for start, end in pairwise([*ends, len(numbers)])]


def _unless_idle(running: Any, transition: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """The transition of an environment that is running; of one that idles, its old state and observation, and zeros."""
    *after, reward, terminated, truncated, valid = transition
    state_and_obs = [torch.where(running, new, old) for new, old in zip(after, before, strict=True)]
    flags = [running & flag for flag in (terminated, truncated, valid)]
    return [*state_and_obs, torch.where(running, reward, 0.0), *flags]
