"""Henderson, Romoff and Pineau 2018: which claims of "Where Did My Optimum Go?" hold, by rules fixed beforehand.

Read for this: the abstract, and the authors' configurations (github.com/facebookresearch/WhereDidMyOptimumGo). The
paper's own text, tables and figures were not at hand; claims beyond the abstract come from a reader's public notes,
which quote it, and say so.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pgkit.compare.reproduction import rules
from pgkit.compare.reproduction.studies import Claim, Study
from pgkit.errors import PgkitError

ADAPTIVE = ("adagrad", "adadelta", "rmsprop", "adam", "amsgrad", "adamax")
PLAIN = ("sgd", "nesterov")

ABSTRACT = "Abstract, arXiv 1810.02525"
NOTES = "A reader's public notes, which quote the results section; not compared with the paper itself"

CLAIMS = (
    Claim(
        "narrow window",
        "Adaptive optimizers have a narrow window of effective learning rates.",
        ABSTRACT,
        "A window is the contiguous set of rates around the best whose mean score is at least 0.9 of it, in decades; "
        "it counts where the best rate learns (mean score of at least 0.1). Confirmed if the adaptive optimizers' "
        "windows are narrower than those of sgd and nesterov by more than 0.25 decades on average over cases (95 % "
        "bootstrap interval over seeds); not confirmed if they are narrower by less, or wider.",
        rules.whole(partial(rules.narrower_windows, narrow=ADAPTIVE, wide=PLAIN)),
    ),
    Claim(
        "diverging outside",
        "Outside that window, adaptive optimizers diverge.",
        ABSTRACT,
        "Counted at the rates of the grid above each window, up to a decade above its end: runs that did not learn (a "
        "final score below 0.1, or numbers that are not finite). Confirmed if more than half did not (95 % bootstrap "
        "interval over seeds), not confirmed if fewer.",
        rules.whole(partial(rules.diverging_beyond, arms=ADAPTIVE, others=PLAIN)),
    ),
    Claim(
        "nesterov is stable",
        "SGD with Nesterov momentum is more stable across learning rates than Adam and RMSProp.",
        NOTES,
        "Stability is the mean score over all rates of the grid, as a share of the best rate's. Confirmed if "
        "nesterov's share exceeds the mean of adam's and rmsprop's by more than 0.05 on average over cases (95 % "
        "bootstrap interval over seeds); not confirmed if by less. Cases count where both sides learn.",
        rules.whole(partial(rules.evener_rates, arm="nesterov", others=("adam", "rmsprop"))),
    ),
    Claim(
        "momentum and environment",
        "How effective momentum is depends on the environment.",
        ABSTRACT,
        "The effect of momentum is the score of nesterov minus that of sgd, each at its selected rate (at one shared "
        "rate, momentum 0.9 is also a step ten times as long). Confirmed if it differs by more than 0.05 between two "
        "environments for some agent (Welch's intervals, 95 % for all pairs together); not confirmed if every "
        "difference lies within 0.05. Cases count where one of the two learns.",
        rules.whole(partial(rules.depends_on_environment, momentum="nesterov", plain="sgd")),
    ),
    Claim(
        "better optima with A2C",
        "With A2C, a well-tuned adaptive optimizer finds better optima than SGD with Nesterov momentum.",
        NOTES,
        "The adaptive optimizer with the best tuning score against nesterov, each at its selected rate, by the final "
        "score. Confirmed if it is higher by more than 0.05 on average over environments (Welch's 95 % interval); not "
        "confirmed if by less, or lower. Environments count where one of the two learns.",
        rules.whole(partial(rules.better_optimum, agent="actor-critic", arms=ADAPTIVE, other="nesterov")),
    ),
)

SOURCES = (
    (
        "arXiv 1810.02525, abstract",
        "adaptive optimizers, narrow window, diverging in other cases; momentum's effectiveness varies with the "
        "environment; continuous control",
    ),
    (
        "github.com/facebookresearch/WhereDidMyOptimumGo, benchmarks/configurations/continuous/{a2c,ppo}",
        "Hopper, HalfCheetah, Walker2d, Ant and Reacher (v2); ten pairs of seeds; 2,000,000 steps; one environment; "
        "A2C with 5 steps per update and no GAE; PPO with 2,048 steps, 10 epochs of 32 minibatches, clipping at 0.2, "
        "lambda 0.95; gamma 0.99; gradients clipped at 0.5; value loss weighed 1",
    ),
    (
        "the same, .../hendersonromoff2018optimizer/ablation/learning_rates/{1,2,3,5,7,9,10}.json",
        "1e-3, 9e-4, 8e-4, 6e-4, 4e-4, 2e-4 and 1e-4 of ten linear rates (three files were not opened); Adam and "
        "AMSGrad with eps 1e-5, RMSprop with alpha 0.99 and eps 1e-5, Adadelta, Adagrad, Adamax, SGD, SGD with "
        "Nesterov momentum 0.9; also ASGD, YellowFin, L-BFGS and K-FAC",
    ),
    (
        "the same, optimumrl/experiment/executor.py and algorithms/",
        "observations and rewards normalised by running statistics; one optimizer for actor and critic; no schedule; "
        "PPO's advantages normalised over the batch",
    ),
)

DIFFERENCES = (
    "Environments: CartPole-v1 (discrete actions) and Pendulum-v1 (continuous), not MuJoCo's five; --environments "
    "mujoco runs those, at the versions that Gymnasium has.",
    "50,000 steps for each run, not 2,000,000; on Pendulum-v1 gamma is 0.9, not 0.99.",
    "Rewards are scaled by a constant, and observations are not normalised.",
    "Scores are of evaluations on episodes of their own (21 while training), not of the episodes of training: their "
    "area under the learning curve, and their end, for the average and the last episodes of the study.",
    "Left out: ASGD, whose average is never acted with in the study's code, so that it is SGD with a slowly falling "
    "rate; YellowFin, which pgkit does not have; L-BFGS and K-FAC, which no claim is about.",
    "Seeds are 0 to 9, not the study's.",
)

REFERENCES = {
    "Hopper-v5": 2000.0,
    "HalfCheetah-v5": 2000.0,
    "Walker2d-v5": 2000.0,
    "Ant-v5": 2000.0,
    "Reacher-v5": -5.0,
}
"""Returns that score 1, chosen for this page: round numbers that a trained policy reaches."""


def mujoco() -> Mapping[str, Any]:
    """Return the environments of the study, as tables of a comparison.

    Raises:
        PgkitError: Gymnasium cannot make them, because MuJoCo is not installed.
    """
    import gymnasium

    for name in REFERENCES:
        try:
            gymnasium.make(name).close()
        except gymnasium.error.Error as error:
            reason = " ".join(str(error).split())
            raise PgkitError(f"the study's environments need MuJoCo: {name} cannot be made ({reason})") from None
    env = {"normalize_observations": True, "normalize_rewards": True}
    a2c = {"rollout_steps": 5, "agent": {"lam": 1.0, "value_coef": 1.0}}
    ppo = {"rollout_steps": 2048, "epochs": 10, "minibatches": 32}
    clipped = {"lam": 0.95, "clip_range": 0.2, "normalize_over": "batch", "value_coef": 1.0}
    agents = {"actor-critic": a2c, "ppo": {**ppo, "agent": clipped}}
    return {
        name: {"reference_return": value, "threshold": value, "train": {"env": env}, "agents": agents}
        for name, value in REFERENCES.items()
    }


HENDERSON2018 = Study(
    name="henderson2018",
    title="Henderson, Romoff and Pineau 2018: Where Did My Optimum Go? (arXiv 1810.02525)",
    linear="reproduce-henderson2018",
    log="reproduce-henderson2018-log",
    span=(1e-4, 1e-3),
    claims=CLAIMS,
    groups={"adaptive": ADAPTIVE, "plain": PLAIN},
    momentum=("nesterov", "sgd"),
    sources=SOURCES,
    differences=DIFFERENCES,
    suites={"mujoco": mujoco},
)
