"""Points of training with quantities that somebody could have measured, for tests of what is said about them."""

from pgkit.diagnose.results import PointResult, Quantity

RANDOM = 20.0
REFERENCE = 475.0  # so that 5 % of the distance are 22.75


def quantity(value, error=0.0, n=64):
    """A quantity whose interval reaches ``error`` to either side."""
    return Quantity(value, value - error, value + error, n)


def share(value, low, high, n=64):
    """A share of copies."""
    return Quantity(value, low, high, n)


def scanned(**changes):
    """What the scan measures at a point where nothing is wrong; names have ``__`` for ``/``, None removes one."""
    quantities = {
        "return/mean": quantity(200.0, 10.0, 100),
        "return/random": quantity(RANDOM, 1.0, 100),
        "noise/actor/grad_norm": quantity(0.1, 0.01),
        "noise/actor/nsr": quantity(0.5, 0.1),
        "noise/actor/p_flip": quantity(0.001),
        "health/policy/certain": quantity(0.3, 0.02, 2048),
        "post_update/updates": Quantity(39.0),
        "post_update/1/kl": quantity(0.0005, 0.0001),
        "post_update/K/mean": quantity(210.0, 10.0),
        "post_update/K/change": quantity(10.0, 5.0),
        "post_update/K/half_share": share(0.0, 0.0, 0.057),
        "parts/odd": quantity(2.0, 1.0, 20),
        "parts/even": quantity(-0.1, 0.5, 20),
        "parts/gap": quantity(-0.1, 0.5),
        "parts/total": quantity(1.8, 1.0),
        "parts/best_multiple": Quantity(10.0, 3.0, 40.0, 20),
    }
    quantities |= {name.replace("__", "/"): value for name, value in changes.items()}
    return {name: value for name, value in quantities.items() if value is not None}


def point(at=0.1, **changes):
    """One point of a training of 500,000 steps."""
    return PointResult("seed-3", 500_000 * at, at, False, scanned(**changes))


def course(*returns, **changes):
    """Points at equal distances from 0 to the end of training, with these returns and the same changes."""
    count = max(len(returns) - 1, 1)
    return [point(k / count, return__mean=quantity(value, 10.0, 100), **changes) for k, value in enumerate(returns)]


def healthy_points():
    """A member that learns until it is solved."""
    return course(22.0, 100.0, 300.0, 500.0)


DEAD = {
    "return__mean": quantity(9.4, 0.1, 100),
    "noise__actor__grad_norm": quantity(1e-23, 0.0),
    "health__policy__certain": quantity(0.99, 0.005, 2048),
    "post_update__K__mean": quantity(9.4, 0.1),
    "post_update__K__change": quantity(0.0, 0.1),
    "post_update__K__half_share": Quantity.missing("not above random"),
    "post_update__1__kl": quantity(0.0),
    "parts__odd": quantity(0.0, 0.1, 20),
    "parts__even": quantity(0.0, 0.1, 20),
    "parts__gap": quantity(0.0, 0.1),
    "parts__best_multiple": Quantity.missing("neither is resolved"),
}
"""What changes where a policy is saturated and far from solved."""

FRAGILE = {
    "return__mean": quantity(494.0, 6.0, 100),
    "post_update__K__mean": quantity(83.0, 25.0),
    "post_update__K__half_share": share(0.8, 0.69, 0.88),
}
"""What changes where the next updates ruin the policy."""
