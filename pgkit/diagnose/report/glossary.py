"""What the page says of each section, and its words."""

from collections.abc import Mapping
from typing import NamedTuple


class Topic(NamedTuple):
    """A section of the page.

    Attributes:
        title: its heading.
        text: what it means, and how to read it.
        sections: first parts of the names of its quantities.
        figures: names of its figures.
    """

    title: str
    text: str
    sections: tuple[str, ...]
    figures: tuple[str, ...]


TOPICS: tuple[Topic, ...] = (
    Topic(
        "A. Noise of the gradient",
        "How far the gradient of one batch is from the expected one: above a ratio of 1 a batch holds more noise than "
        "signal. A noisy gradient is no fault by itself, since the ratio grows without bound at every optimum, and a "
        "resolved gradient is not yet a right one: see B.",
        ("noise",),
        ("nsr", "cosines", "pairwise-cosines"),
    ),
    Topic(
        "B. Estimators and critic",
        "What other estimators would make of the same episodes, and how good the critic is against whole returns: look "
        "for a bias above 1, where the error of the critic outweighs the true gradient, and for explained variance "
        "below 0, where a constant would do better than the critic.",
        ("estimators", "critic"),
        ("estimators", "critic"),
    ),
    Topic(
        "C. The next updates",
        "Copies of the policy train on with fresh random numbers, as it is and with one thing changed: what lowers the "
        "share of copies that fall took part in the fall. A difference whose interval holds 0 says nothing either way.",
        ("post_update", "parts", "interventions", "directions"),
        ("post-update", "parts", "interventions", "directions"),
    ),
    Topic(
        "D. Curvature",
        "How the return bends around the policy, measured on fresh episodes: a strongly negative curvature along the "
        "update means that a step of its length goes too far. The most negative direction is searched for, not known: "
        "the true extremes can be further out.",
        ("curvature",),
        ("curvature", "probes"),
    ),
    Topic(
        "E. Policy and networks",
        "Whether the policy still chooses and the networks can still move: certain states and saturated units have "
        "hardly any gradient. There are no intervals over networks, since one network is one network.",
        ("health",),
        ("health",),
    ),
    Topic(
        "F. Cliffs",
        "The smallest multiple of an update at which the return halves: at 1 or below, the next step can fall off. "
        "The command pgkit landscape draws lines, paths and planes.",
        ("cliff",),
        (),
    ),
)

GLOSSARY: Mapping[str, str] = {
    "point": "one member of the run at one checkpoint: its parameters, critic and optimizer state, frozen",
    "critical point": "a point that was looked at closely: before the largest fall of the return, where most copies "
    "fall, and at the end",
    "J": "the expected undiscounted return of whole episodes with sampled actions",
    "copy": "the same point under fresh random numbers; its updates are those that the run could have made. It "
    "acts until its environments are out of phase first, or begins in those of the checkpoint (--from-saved)",
    "K updates": "as many updates as fill 2 % of the training, between 8 and 64",
    "P(half)": "the share of copies that lose more than half of the return, counted from random actions",
    "signal, noise": "the squared norm of the expected gradient, and the total variance of one batch's gradient",
    "NSR": "noise over signal of one batch",
    "resolved": "told apart from zero: an interval that excludes it or, for gradients, a test by sign flips (p below "
    ".05)",
    "odd, even, gap": "what an update gains to first order, what it loses to curvature, and what its noise costs; "
    "their sum is the mean change of the return",
    "intervention": "the K updates once more with one thing changed",
    "equal travel": "a tenth of the learning rate, with ten times as many updates",
    "bias": "of an estimator: the squared distance of its mean from the true gradient, over the squared norm of that",
    "explained variance": "1 - Var(G - V) / Var(G), G the returns of whole episodes and V the critic's values",
    "curvature": "v'Hv, the second derivative of the return along a direction v of length 1",
    "common random numbers": "policies that are compared play episodes with the same random numbers, so that their "
    "difference is known better than each of them",
    "saturated, flat": "outputs of tanh beyond .97, and units whose mean slope is below .05",
    "95 % interval": "of a mean by Student's t, of a share by Wilson, of a difference of shares by Newcombe, of a "
    "ratio by Fieller, else by jackknife or bootstrap",
}
"""The words of the page."""
