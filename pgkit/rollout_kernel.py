"""Whole rollouts in environments that step element by element, written down for LLVM."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from llvmlite import ir

from pgkit.categorical import most_likely, pick
from pgkit.elements import KINDS, Column, Value, address, each_row
from pgkit.llvm import INT, POINTER, compiled_function, function, loop
from pgkit.network_kernel import LAYERS, Layers, forward_function
from pgkit.seeding import uniform

if TYPE_CHECKING:
    from pgkit.networks import Activation

REAL, FLAG = KINDS[torch.float32], KINDS[torch.bool]


class Form(NamedTuple):
    """What the code of a rollout depends on.

    Attributes:
        activation: of the policy's networks.
        width: L, how many actions there are.
        obs_dim: D.
        step: see :class:`pgkit.envs.base.Elementwise`.
        state: what the numbers of the state are.
        constants: what those of the constants are.
        deterministic: whether the most likely action is taken.
    """

    activation: "Activation"
    width: int
    obs_dim: int
    step: Callable[..., list[Any]]
    state: tuple[torch.dtype, ...]
    constants: tuple[torch.dtype, ...]
    deterministic: bool


def compile_rollout(form: Form) -> Callable[..., None]:
    """``rollout(T, P, N, members, keys, counters, *layers, obs, action, reward, ends, *state, *constants, room)``.

    ``obs``, ``action`` and ``reward`` are those of :class:`pgkit.types.Rollout`, but member by member:
    ``(P, T + 1, N, D)``, the first N of each given, and ``(P, T, N)``; ``ends`` its ``terminated``, ``truncated`` and
    ``valid``, one behind the other. ``members`` are int64 ``(P,)``, member k's environments the N from ``members[k] N``
    on; the keys of its action noise int64 ``(P,)``, ``counters`` those of the first numbers, likewise.
    """
    module = ir.Module()
    forward = forward_function(module, REAL, form.activation)
    columns = len(form.state) + len(form.constants)
    kinds = [INT, INT, INT, *[POINTER] * 3, *LAYERS, *[POINTER] * (5 + columns)]
    builder, arguments = function(module, "rollout", kinds, alias=True)
    steps, members, count, *of_members = arguments[:6]
    layers, (obs, action, reward, ends, *bases, room) = Layers(*arguments[6:12]), arguments[12:]
    outputs = builder.load(
        builder.gep(layers.after, [builder.sub(layers.count, INT(1))], source_etype=POINTER), typ=POINTER
    )
    flags = builder.mul(steps, builder.mul(members, count))  # from those of one kind to the next
    with loop(builder, members) as member, loop(builder, steps) as step:
        whose, key, counter = (
            builder.load(builder.gep(base, [member], source_etype=INT), typ=INT) for base in of_members
        )
        own = builder.mul(whose, count)
        at = partial(address, builder)
        before = builder.mul(builder.add(builder.mul(member, steps), step), count)
        of_obs = builder.mul(builder.add(before, builder.mul(member, count)), INT(form.obs_dim))
        seen = [
            at(obs, REAL, builder.add(of_obs, INT(0))),
            at(obs, REAL, builder.add(of_obs, builder.mul(count, INT(form.obs_dim)))),
        ]
        builder.call(forward, [member, count, before, *layers, seen[0], room])
        given = at(outputs, REAL, builder.mul(before, INT(form.width)))
        kinds_of = [KINDS[dtype] for dtype in (*form.state, *form.constants)]
        columns_of = [Column(at(base, kind, own), kind) for base, kind in zip(bases, kinds_of, strict=True)]
        state, constants = columns_of[: len(form.state)], columns_of[len(form.state) :]
        position = builder.add(counter, builder.mul(step, count))

        def act(row: Value, *numbers: Value) -> list[Value]:
            logits, rest = numbers[: form.width], numbers[form.width :]
            noise = uniform(row.everywhere(key), row + row.everywhere(position))
            chosen = most_likely(logits) if form.deterministic else pick(logits, noise)
            return [chosen, *form.step(chosen, *rest)]

        each_row(
            builder,
            count,
            [*_columns(builder, given, form.width), *state, *constants],
            [
                Column(at(action, INT, before), INT),
                *state,
                *_columns(builder, seen[1], form.obs_dim),
                Column(at(reward, REAL, before), REAL),
                *(Column(at(ends, FLAG, builder.add(before, builder.mul(flags, INT(k)))), FLAG) for k in range(3)),
            ],
            act,
        )
    builder.ret_void()
    return compiled_function(builder.function)


def _columns(builder: ir.IRBuilder, base: ir.Value, width: int) -> list[Column]:
    """Those of a matrix of so many float32 a row."""
    return [Column(address(builder, base, REAL, INT(column)), REAL, width) for column in range(width)]
