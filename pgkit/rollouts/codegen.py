"""Whole rollouts in environments that step element by element, written down for LLVM."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.compiler.elementwise import Column, element_address, elementwise_loop
from pgkit.compiler.ir import INT, POINTER, function, loop
from pgkit.compiler.jit import compile_function
from pgkit.compiler.tracer import IR_TYPES, TracedScalar
from pgkit.kernels.categorical import most_likely, sample
from pgkit.kernels.codegen.mlp import LAYERS, Layers, forward_function
from pgkit.rollouts.statistics import NUM_ENV_STATS, step_env_stats
from pgkit.seeding import uniform

if TYPE_CHECKING:
    from pgkit.kernels.activations import Activation

REAL, DOUBLE, FLAG = (IR_TYPES[dtype] for dtype in (torch.float32, torch.float64, torch.bool))


class RolloutSpec(NamedTuple):
    """What the code of a rollout depends on.

    Attributes:
        activation: of the policy's networks.
        width: L, how many actions there are.
        obs_dim: D.
        step: see :class:`pgkit.envs.base.Elementwise`.
        state: what the numbers of the state are.
        constants: what those of the constants are.
        taped: whether the tape holds all steps of all members, or of one member a single one.
        deterministic: whether the most likely action is taken.
        episodes: whether an environment idles when its episode is over.
    """

    activation: "Activation"
    width: int
    obs_dim: int
    step: Callable[..., list[Any]]
    state: tuple[torch.dtype, ...]
    constants: tuple[torch.dtype, ...]
    taped: bool
    deterministic: bool
    episodes: bool


def compile_rollout(spec: RolloutSpec) -> Callable[..., None]:
    """``rollout(T, P, N, members, keys, counters, *layers, *arrays, running, *state, *constants, room)``.

    ``arrays`` are ``obs``, ``action`` and ``reward`` of :class:`pgkit.types.Rollout`, but member by member:
    ``(P, T + 1, N, D)``, the first N of each given, and ``(P, T, N)``; then its ``terminated``, ``truncated`` and
    ``valid``, one behind the other; then :mod:`pgkit.rollouts.statistics`, ``(6, P, N)``. ``members`` are int64
    ``(P,)``, member k's
    environments the N from ``members[k] N`` on; the keys of its action noise int64 ``(P,)``, ``counters`` those of the
    first numbers, likewise. ``running`` is bool ``(P, N)``, which environments do not idle, or with autoreset anything.
    When all of a member's do, nothing more is written for it.
    """
    module = ir.Module()
    forward = forward_function(module, REAL, spec.activation)
    kinds = [INT, INT, INT, *[POINTER] * 3, *LAYERS, *[POINTER] * (7 + len(spec.state) + len(spec.constants))]
    builder, arguments = function(module, "rollout", kinds, alias=True)
    steps, members, count, *of_members = arguments[:6]
    layers, (obs, action, reward, ends, counts, running, *of_envs, room) = Layers(*arguments[6:12]), arguments[12:]
    last = builder.gep(layers.after, [builder.sub(layers.count, INT(1))], source_etype=POINTER)
    outputs, at = builder.load(last, typ=POINTER), partial(element_address, builder)
    everything = builder.mul(steps, builder.mul(members, count))
    some = _some_of(builder, running, count) if spec.episodes else lambda member: nullcontext()
    with loop(builder, members) as member, loop(builder, steps) as step, some(member):
        whose, key, counter = (
            builder.load(builder.gep(base, [member], source_etype=INT), typ=INT) for base in of_members
        )
        first = builder.mul(builder.add(builder.mul(member, steps), step), count)
        of_obs = builder.mul(builder.add(first, builder.mul(member, count)), INT(spec.obs_dim))
        here, there = at(obs, REAL, of_obs), builder.add(of_obs, builder.mul(count, INT(spec.obs_dim)))
        on_tape = first if spec.taped else INT(0)
        builder.call(forward, [member, count, on_tape, *layers, here, room])
        own, place = builder.mul(whose, count), builder.mul(member, count)
        state, constants = _columns_of(builder, of_envs, own, spec)
        of_counts = builder.mul(place, INT(NUM_ENV_STATS))
        totals = [
            _column(builder, counts, DOUBLE, builder.add(of_counts, builder.mul(count, INT(k))))
            for k in range(NUM_ENV_STATS)
        ]
        flags = [_column(builder, ends, FLAG, builder.add(first, builder.mul(everything, INT(k)))) for k in range(3)]
        next_obs = _matrix(builder, at(obs, REAL, there), spec.obs_dim)
        results = [
            _column(builder, action, INT, first),
            *state,
            *next_obs,
            _column(builder, reward, REAL, first),
            *flags,
        ]
        given = _matrix(builder, at(outputs, REAL, builder.mul(on_tape, INT(spec.width))), spec.width)
        inputs = [*totals, *given, *state, *constants]
        act = _actor(spec, key, builder.add(counter, builder.mul(step, count)))
        if spec.episodes:
            goes_on = _column(builder, running, FLAG, place)
            inputs += [*_matrix(builder, here, spec.obs_dim), goes_on]
            results.append(goes_on)
        elementwise_loop(builder, count, inputs, [*totals, *results], act)
    builder.ret_void()
    return compile_function(builder.function)


def _some_of(
    builder: ir.IRBuilder, flags: ir.Value, count: ir.Value
) -> Callable[[ir.Value], AbstractContextManager[None]]:
    """By member: what is written inside happens if one of its ``count`` flags is set."""
    byte = ir.IntType(8)
    found = builder.alloca(byte)

    @contextmanager
    def some(member: ir.Value) -> Iterator[None]:
        builder.store(byte(0), found)
        with loop(builder, count) as index:
            place = builder.add(builder.mul(member, count), index)
            flag = builder.load(builder.gep(flags, [place], source_etype=byte), typ=byte)
            builder.store(builder.or_(builder.load(found, typ=byte), flag), found)
        with builder.if_then(builder.icmp_unsigned("!=", builder.load(found, typ=byte), byte(0))):
            yield

    return some


def _actor(spec: RolloutSpec, key: ir.Value, counter: ir.Value) -> Callable[..., list[Any]]:
    """One step of an environment: counts, action, and what the environment says."""

    def act(row: TracedScalar, *numbers: Any) -> list[Any]:
        counts, logits, rest = (
            numbers[:NUM_ENV_STATS],
            numbers[NUM_ENV_STATS : NUM_ENV_STATS + spec.width],
            numbers[NUM_ENV_STATS + spec.width :],
        )
        stream: Any = row.splat(key)
        number: Any = row + row.splat(counter)
        chosen = most_likely(logits) if spec.deterministic else sample(logits, uniform(stream, number))
        given = len(spec.state) + len(spec.constants)
        seen, goes_on = spec.step(chosen, *rest[:given]), []
        if spec.episodes:
            *obs, running = rest[given:]
            seen = _unless_idle(running, seen, [*rest[: len(spec.state)], *obs])
            goes_on = [running & ~(seen[-3] | seen[-2])]
        return [*step_env_stats(*counts, *seen[-4:]), chosen, *seen, *goes_on]

    return act


def _unless_idle(running: Any, seen: Sequence[Any], before: Sequence[Any]) -> list[Any]:
    """What an environment shows; one whose episode is over, its state and observation before, and that is all."""
    *after, reward, terminated, truncated, valid = seen
    kept = [torch.where(running, new, old) for new, old in zip(after, before, strict=True)]
    flags = [running & flag for flag in (terminated, truncated, valid)]
    return [*kept, torch.where(running, reward, 0.0), *flags]


def _column(builder: ir.IRBuilder, base: ir.Value, kind: ir.Type, first: ir.Value) -> Column:
    return Column(element_address(builder, base, kind, first), kind)


def _columns_of(
    builder: ir.IRBuilder, bases: Sequence[ir.Value], first: ir.Value, spec: RolloutSpec
) -> tuple[list[Column], list[Column]]:
    """What the state and the constants are of the environments from the first one on."""
    kinds = [IR_TYPES[dtype] for dtype in (*spec.state, *spec.constants)]
    columns = [_column(builder, base, kind, first) for base, kind in zip(bases, kinds, strict=True)]
    return columns[: len(spec.state)], columns[len(spec.state) :]


def _matrix(builder: ir.IRBuilder, base: ir.Value, width: int) -> list[Column]:
    """The columns of a matrix of so many float32 a row."""
    return [Column(element_address(builder, base, REAL, INT(column)), REAL, width) for column in range(width)]
