"""The signature of compiled environments: the step of a block of them, as code that a module can contain."""

from typing import NamedTuple

from pgkit.compiler.signature import Address, Int64


class EnvStepArguments(NamedTuple):
    """One step of ``count`` consecutive environments with "next_step" autoreset; each address is of the first one's.

    Attributes:
        count: of environments.
        running: bool ``(count,)``, or null for all: the others are left alone, and nothing is written for them.
        action: int64 ``(count,)`` or float32 ``(count, A)``.
        obs: float32 ``(count, D)``, written.
        reward: float32 ``(count,)``, written.
        terminated: bool ``(count,)``, written.
        truncated: bool ``(count,)``, written.
        valid: bool ``(count,)``, written: False at a reset step.
        state: of each state tensor, whose leading axis is of environments; changed.
    """

    count: Int64
    running: Address
    action: Address
    obs: Address
    reward: Address
    terminated: Address
    truncated: Address
    valid: Address
    state: tuple[Address, ...]
