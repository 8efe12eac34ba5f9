"""Diagnoses to show: one as a run of two members gives, with everything; and the least that there can be."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgkit.diagnose.results import Diagnosis, PointResult, Quantity, Row, Verdict

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
STEPS = 499_000
COPIES = 64
K = 39
ESTIMATORS = ("none", "mean", "leave-one-out", "value", "gae-0", "gae-0.5", "gae-0.9", "gae-0.95", "gae-0.99", "gae-1")
INTERVENTIONS = ("batch_x8", "rate_div_10", "critic_fitted", "optimizer_reset", "lambda_1")
RETURNS = {
    "seed-300": (23.0, 63.0, 171.0, 389.0, 466.0, 500.0, 500.0, 500.0, 500.0, 500.0),
    "seed-301": (22.0, 71.0, 150.0, 326.0, 490.0, 63.0, 191.0, 420.0, 500.0, 500.0),
}
HALF_SHARES = {
    "seed-300": (0.0, 0.02, 0.0, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "seed-301": (0.0, 0.02, 0.03, 0.31, 0.77, 0.08, 0.05, 0.0, 0.0, 0.0),
}
CRITICAL = {"seed-301": (3, 4)}
FRAGILE = (
    "Fragile: after 39 more updates from 49.9k steps, 77 % [65 %, 86 %] of 64 copies fall below half of the return of "
    "490. A critic that was fitted first lowers that by 58 points [42, 70]: the critic is wrong."
)
HEALTHY = "Healthy: none of the other rules speaks at any point, and the return rises to 500 [500, 500]."


def around(value: float, half: float, n: int = COPIES) -> Quantity:
    """A value with a symmetric interval."""
    return Quantity(float(value), float(value - half), float(value + half), n)


def full(seed: int = 0) -> Diagnosis:
    """A diagnosis of two members at ten points, one of which fell and was looked at closely."""
    rng = np.random.default_rng(seed)
    points, tables = [], dict[str, list[Row]]()
    for label, returns in RETURNS.items():
        for k, (share, value) in enumerate(zip(SHARES, returns, strict=True)):
            critical = k in CRITICAL.get(label, ())
            half_share = HALF_SHARES[label][k]
            quantities = scan(rng, value, half_share, last=share == 1.0) | (look(rng, value) if critical else {})
            points.append(PointResult(label, share * STEPS, share, critical, quantities))
            place = {"member": int(label[5:]), "label": label, "env_steps": share * STEPS}
            for name, rows in rows_of(rng, value, half_share, critical).items():
                tables.setdefault(name, []).extend({**place, **row} for row in rows)
    tables["same_states"] = [
        {"member": 300, "label": label, "env_steps": share * STEPS, "return/mean": 100.0}
        | {"post_update/K/mean": after, "post_update/K/mean_low": after - 20, "post_update/K/mean_high": after + 20}
        for share in (0.05, 0.2)
        for label, after in zip(RETURNS, (120.0 + 100 * share, 60.0), strict=True)
    ]
    return Diagnosis(
        run="runs/cartpole-actor-critic",
        settings={"copies": COPIES, "updates": K, "episodes": 20, "seed": 0, "reference_return": 475.0},
        points=points,
        verdicts=[
            Verdict("seed-300", "healthy", HEALTHY, (STEPS,), ("return/mean",), "a fall of the return later on"),
            Verdict(
                "seed-301",
                "fragile",
                FRAGILE,
                (0.05 * STEPS, 0.1 * STEPS),
                ("post_update/K/half_share", "interventions/critic_fitted/improvement"),
                "a fitted critic that leaves the share of falling copies as it is, on other seeds of the copies",
            ),
            Verdict(
                "seed-301",
                "overshoots",
                "The mean update overshoots: it gains +6.6 [-1.6, 14.8] to first order and loses 13.7 [8.0, 19.4] to "
                "curvature; its best length is .24 of its own.",
                (0.1 * STEPS,),
                ("parts/odd", "parts/even", "parts/gap"),
                "a mean change above 0 with more copies",
            ),
        ],
        summary={
            "seed-300": "This run learnt and stayed: it ends at 500, and none of 64 copies falls when it trains on.",
            "seed-301": "This run learnt, fell from 490 to 63 between 10 % and 20 % of training, and came back. The "
            "policy stood on a ridge: its critic was wrong, and the step overshot.",
        },
        tables=tables,
        not_done=[("updates at the end", "the learning rate's schedule has ended")],
        cost={"env_steps": 61_000_000.0, "seconds": 111.4},
        versions={"pgkit": "0.1.0", "torch": "2.13.0", "numpy": "2.4.0", "python": "3.11.9"},
    )


def minimal() -> Diagnosis:
    """One point, most quantities missing, NaN and infinite numbers among them, nothing said."""
    missing = Quantity.missing("the gradient is not resolved")
    quantities = {
        "return/mean": Quantity(9.4, 9.3, 9.5, 100),
        "noise/actor/nsr": Quantity(math.nan, 11.0, math.inf, COPIES, "the gradient is not resolved (p = 0.4)"),
        "noise/actor/grad_norm": Quantity(1.5e-23),
        "noise/actor/signal": missing,
        "post_update/1/half_share": Quantity.missing("the return is not above that of random actions"),
        "parts/best_multiple": Quantity(math.inf, -math.inf, math.inf),
        "critic/bias": Quantity(math.nan),
        "health/actor/weight_norm": Quantity(math.inf),
    }
    return Diagnosis("runs/dead", {}, [PointResult("seed-0", 0.0, 0.0, False, quantities)])


def scan(rng: np.random.Generator, value: float, half_share: float, last: bool) -> dict[str, Quantity]:
    """What is measured at every point."""
    nsr = 0.8 + 60 * float(rng.random()) * (value > 100)
    quantities = {"return/mean": around(value, 0 if value == 500 else 0.03 * value), "return/random": around(22.0, 1)}
    for network, scale in (("actor", 1.0), ("critic", 0.3)):
        resolved = nsr < 40 or network == "critic"
        name = f"noise/{network}"
        ratio = Quantity(nsr * scale, 0.7 * nsr * scale, 1.6 * nsr * scale, COPIES)
        quantities |= {
            f"{name}/signal": around(0.3 / (1 + value), 0.05 / (1 + value)),
            f"{name}/noise": around(0.3 * nsr / (1 + value), 0.01),
            f"{name}/nsr": ratio if resolved else Quantity(math.nan, 0.6 * nsr, math.inf, COPIES, "not resolved"),
            f"{name}/noise_scale": Quantity(nsr * 2048, nsr * 1400, nsr * 3300, COPIES),
            f"{name}/pairwise_cosine": around(1 / (1 + nsr * scale), 0.02),
            f"{name}/true_cosine": around((1 + nsr * scale) ** -0.5, 0.05) if resolved else Quantity.missing("half"),
            f"{name}/p_flip": Quantity(0.001 if resolved else 0.3, n=999),
            f"{name}/grad_norm": around(10 / (1 + value), 1 / (1 + value)),
            f"{name}/update_snr": around(5.0, 1.0),
        }
    quantities |= health(rng, value)
    if last:
        return quantities
    for updates, share in (("1", half_share / 8), ("K", half_share)):
        quantities |= {
            f"post_update/{updates}/mean": around(value * (1 - 0.6 * share), 10),
            f"post_update/{updates}/half_share": Quantity(share, max(0.0, share - 0.1), share + 0.06, COPIES),
            f"post_update/{updates}/kl": Quantity(0.004, 0.003, 0.005, COPIES),
            f"post_update/{updates}/norm": Quantity(0.05, 0.04, 0.06, COPIES),
        }
    odd, even, gap = 6.6 - 10 * half_share, -2 - 14 * half_share, 0.4 - 2 * half_share
    quantities["post_update/updates"] = Quantity(K)
    quantities |= {f"parts/{name}": around(part, 3) for name, part in (("odd", odd), ("even", even), ("gap", gap))}
    total = odd + even + gap
    return quantities | {"parts/total": around(total, 3.2), "parts/best_multiple": around(odd / (-2 * even), 0.4)}


def health(rng: np.random.Generator, value: float) -> dict[str, Quantity]:
    """The measures of policy and networks."""
    quantities = {
        "health/policy/entropy": around(0.9 - value / 900, 0.02, 2048),
        "health/policy/certain": around(value / 1000, 0.02, 2048),
        "health/policy/gap": Quantity(1 + value / 100, n=2048),
    }
    for network in ("actor", "critic"):
        measures = {"dormant": 0.0, "constant": 0.05, "saturated": value / 800, "flat": value / 1600, "srank": 8.0}
        measures |= {"feature_rank": 12.0, "effective_rank": 5.0 + rng.random(), "sign_balance": 0.7}
        measures |= {"weight_norm": 1 + value / 300, "largest_singular": 2.0}
        quantities |= {f"health/{network}/{name}": Quantity(float(v), n=2048) for name, v in measures.items()}
    return quantities


def look(rng: np.random.Generator, value: float) -> dict[str, Quantity]:
    """What is measured at critical points."""
    shares = dict(zip(INTERVENTIONS, (0.92, 0.03, 0.19, 0.6, 0.64), strict=True))
    quantities = {}
    for name, share in shares.items():
        quantities |= {
            f"interventions/{name}/half_share": around(share, 0.09),
            f"interventions/{name}/improvement": around(0.77 - share, 0.14),
            f"interventions/{name}/mean": around(value * (1 - share / 2), 20),
        }
    for k, name in enumerate(ESTIMATORS):
        learned = name == "value" or name.startswith("gae")
        bias2 = around(129.0 / (1 + k), 30.0) if learned else around(-0.01, 0.05)
        quantities |= {
            f"estimators/{name}/variance": around(40.0 / (1 + k), 5.0),
            f"estimators/{name}/bias2": bias2,
            f"estimators/{name}/mse": around(bias2.value + 20, 30),
            f"estimators/{name}/cosine": around(0.65 if learned else 0.99, 0.1),
        }
    for optimizer, share in (("own adam", 0.48), ("fresh adam", 0.02), ("sgd", 0.06), ("npg", 0.36), ("random", 0.22)):
        for equal in ("kl", "norm"):
            quantities[f"directions/{optimizer}/{equal}/half_share"] = around(
                share * (0.6 if equal == "norm" else 1), 0.1
            )
    quantities |= {
        "critic/explained_variance": around(-4.0, 0.8, 768),
        "critic/explained_variance_bootstrapped": around(0.1, 0.05, 768),
        "critic/bias": around(-30.0, 4.0, 768),
        "critic/target_variance": around(300.0, 40.0, 768),
        "curvature/top": around(242.0, 30, 128),
        "curvature/bottom": around(-9.5e3, 1.9e3, 128),
        "curvature/top_differences": around(260.0, 60, 100),
        "curvature/bottom_differences": around(-1.31e4, 1.3e3, 100),
        "curvature/mean_update": around(-2e3, 1.5e3, 128),
        "curvature/gradient": around(40.0, 60, 128),
        "curvature/sharpness_ratio": Quantity.missing("the optimizer divides by its second moments"),
        "curvature/fisher_max": Quantity(3.0),
        "cliff/alpha": Quantity(4.0),
    }
    return quantities


def rows_of(rng: np.random.Generator, value: float, half_share: float, critical: bool) -> dict[str, list[Row]]:
    """The rows of the tables of a point."""
    tables: dict[str, list[Row]] = {"updates": update_rows(rng, "none", value, half_share)}
    if not critical:
        return tables
    tables["curvature"] = [
        curvature_row(name, method, height, slope)
        for name, method, height, slope in (
            ("bottom", "products", -9.5e3, -20.0),
            ("top", "products", 242.0, 4.0),
            ("gradient", "products", 40.0, 60.0),
            ("mean_update", "products", -2e3, 30.0),
            *((f"random-{k}", "products", *rng.normal(0, (20, 3)).tolist()) for k in range(25)),
            ("top", "differences", 260.0, math.nan),
            ("bottom", "differences", -1.31e4, math.nan),
        )
    ]
    tables["estimators"] = [{"name": name, "n": 48, "p_flip": 0.001, "reason": None} for name in ESTIMATORS]
    tables["critic_histogram"] = [
        {"value": float(x), "target": float(y), "width": 5.0, "count": height(x, y)}
        for x in range(0, 105, 5)
        for y in range(0, 105, 5)
    ]
    tables["cosines"] = [
        {"network": network, "low": low / 20, "high": (low + 1) / 20, "count": count}
        for network, lows in (("actor", (-20, 0, 19)), ("critic", (18, 19)))
        for low, count in zip(lows, (300, 700, 1016), strict=False)
    ]
    return tables


def update_rows(rng: np.random.Generator, intervention: str, value: float, half_share: float) -> list[Row]:
    """Returns of copies after one update and after K."""
    rows = []
    for updates, share in ((1, half_share / 8), (K, half_share)):
        fallen = rng.random(COPIES) < share
        returns = np.clip(value * np.where(fallen, 0.2, 0.98) + rng.normal(0, 6, (2, COPIES)), 9, 500)
        columns: Sequence[list[float]] = returns.tolist()
        for copy, (a, b) in enumerate(zip(*columns, strict=True)):
            rows.append(
                {"intervention": intervention, "updates": updates, "copy": copy, "j_a": a, "j_b": b, "kl": 0.01}
            )
    return rows


def curvature_row(direction: str, method: str, value: float, slope: float) -> dict[str, Any]:
    """A direction with its curvature and slope."""
    half = abs(value) / 5 + 5
    ends = {"low": value - half, "high": value + half}
    return {"direction": direction, "method": method, "value": value, **ends, "slope": slope}


def height(value: float, target: float) -> int:
    """Steps in one cell of the histogram of a critic."""
    return int(30 * math.exp(-(((value - 60) / 20) ** 2) - ((target - 80) / 30) ** 2))
