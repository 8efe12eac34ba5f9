"""Seeds for environments: 64 bits, folded to 31 for generators that take no more."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnasium import Env

SEED_ERRORS = (ValueError, OverflowError, TypeError, AssertionError)
"""What generators raise that do not take a seed: NumPy's old ones, C integers, bindings of C++, checks by hand."""


def fold_seed(seed: int) -> int:
    """Fold 64 bits into 31, which old generators and C integers take; seeds below 2**31 stay as they are.

    >>> fold_seed(7), fold_seed(2**63 + 11)
    (7, 9)
    """
    return (seed ^ seed >> 31 ^ seed >> 62) & 0x7FFFFFFF


def reset_with_seed(env: "Env[Any, Any]", seed: int) -> tuple[Any, dict[str, Any]]:
    """Reset an environment with a seed of 64 bits, or with the folded seed if its generators do not take that.

    Gymnasium's generators take 64 bits, which make accidental twins as good as impossible. ``np.random.RandomState``
    takes 32, and simulators in C often 31; these raise at once, and are then reset a second time. If that fails, too,
    it was not the seed, and the first error is raised.
    """
    folded = fold_seed(seed)
    try:
        return env.reset(seed=seed)
    except SEED_ERRORS as error:
        if folded == seed:
            raise
        try:
            return env.reset(seed=folded)
        except SEED_ERRORS:
            raise error from None
