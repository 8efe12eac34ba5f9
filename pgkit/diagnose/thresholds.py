"""Every threshold of the verdicts, and where it comes from.

Unless it says otherwise, a threshold was chosen on 20 CartPole actor-critic runs at a good rate and at ten times that
rate: with them, fragility was found at 2 % of the good rate's points and at 34 % of the bad one's.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """What counts as much and as little.

    >>> Thresholds(fragile=0.2).fragile
    0.2

    Attributes:
        rope: changes of the return below this share of R_ref - R_random do not matter, as in comparisons
            (:data:`pgkit.stats.ROPE`).
        saturated_states: share of states in which one action is nearly certain. Solved points have .05 to .85.
        vanished_gradient: norm of the gradient over the run's largest. Dead points had 1e-22, solved ones 1e-4 to 2e-3.
        far: share of R_ref - R_random by which a return is far from R_ref. A choice: four times ``rope``.
        fragile: lower limit of P_K(half). With 64 copies, 12 must fall. A run was below half 2 % of the budget later
            at 0 of 112 points with P_K below .1, at 6 of 21 from .1 to .3.
        cure: lower limit of the improvement by which an intervention helps. A choice: as large as ``fragile``.
        step_level: confidence level of the intervals by which one update is judged. At many points of a run, chance
            alone resolves something at 95 %; 0.995 is about right for ten points.
        explained: upper limit of the explained variance of a critic that is no better than a constant. A choice.
        critic_bias: squared bias of the gradient over the squared true gradient: above 1, most of it is the bias.
        cliff: multiple of an update at which the return halves: the next update goes over it.
        near_cliff: the same for the next few updates.
        stall: share of the budget over which the return does not change. From the specification; not calibrated.
        one_batch: noise over signal above which one batch does not resolve the gradient: more noise than signal.
        many_batches: that of so many batches is 1/16: below 16, they resolve it.
        significance: p value above which a gradient is not resolved.
    """

    rope: float = 0.05
    saturated_states: float = 0.95
    vanished_gradient: float = 1e-4
    far: float = 0.2
    fragile: float = 0.1
    cure: float = 0.1
    step_level: float = 0.95
    explained: float = 0.2
    critic_bias: float = 1.0
    cliff: float = 1.0
    near_cliff: float = 8.0
    stall: float = 0.2
    one_batch: float = 1.0
    many_batches: float = 16.0
    significance: float = 0.05
