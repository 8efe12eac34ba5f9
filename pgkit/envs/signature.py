"""What compiled steps of a block of environments (:class:`pgkit.envs.base.EnvKernel`) and their callers share."""

from typing import NamedTuple

from pgkit.compiler.signature import Address, Int64


class EnvStepArguments(NamedTuple):
    """The arguments of one step of ``count`` consecutive environments; addresses are those of the first one.

    Attributes:
        count: how many environments.
        running: bool ``(count,)``; nothing is changed or written for the others. Null if all are running.
        action: int64 ``(count,)``, or float32 ``(count, A)``.
        obs: float32 ``(count, D)``, written: the observations after the step.
        reward: float32 ``(count,)``, written.
        terminated: bool ``(count,)``, written.
        truncated: bool ``(count,)``, written.
        valid: bool ``(count,)``, written: False where the step was a reset.
        state: of the environments, in the order of :attr:`pgkit.envs.base.EnvKernel.state`; updated.
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
