"""What goes around any optimizer: caution, TRAC, Normalize-and-Project; and the two presets of Adam for RL.

``around_vectors.json`` holds parameters after some steps of a small problem, computed by the references that it names
in float64, to 12 digits.
"""

import copy
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import scipy.special
import torch
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map, erfi
from pgkit.optim import Optimizer, apply_updates, describe, diagnostics, from_config, make
from pgkit.types import Params

FLOAT = torch.float64
ROW = torch.arange(3.0, dtype=FLOAT)[:, None]
COLUMN = torch.arange(4.0, dtype=FLOAT)
STEPS = 200
SHAPES = {"actor.0.weight": (3, 4), "actor.0.bias": (1, 4), "actor.0.norm.weight": (1, 4), "actor.1.weight": (4, 1)}
VECTORS = {case["name"]: case for case in json.loads((Path(__file__).parent / "around_vectors.json").read_text())}
SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "adam_rel_1": ("adam_rel", {}),
    "adam_rel_3": ("adam_rel", {}),
    "adam_equal_betas_0.9": ("adam_equal", {"beta": 0.9}),
    "adam_equal_betas_0.99": ("adam_equal", {}),
    "cautious_adam": ("adam", {"cautious": True}),
    "trac_adam_slot": ("adam", {"trac": True}),
    "trac_adam_slot_quadratic": ("adam", {"trac": True, "trac_s_prev": 0.05}),
    "trac_po_adam_s_prev_0.05": ("adam", {"trac": True, "trac_s_prev": 0.05}),
    "trac_po_adam_quadratic": ("adam", {"trac": True, "trac_s_prev": 0.05}),
    "trac_adam": ("adam", {"trac": True}),
    "trac_sgd": ("sgd", {"trac": True}),
    "nap_adam": ("adam", {"normalize_and_project": 1}),
    "nap_adam_every_2": ("adam", {"normalize_and_project": 2}),
}
OTHER_SUMS = {"trac_po_adam_s_prev_0.05", "trac_po_adam_quadratic", "trac_adam", "trac_sgd"}
"""Their references divide p - p0 by S + 1e-8 to have D again, which changes D by a part in 1e7."""


def gradient(case: Mapping[str, Any], t: int, params: Params) -> Params:
    """Of the vectors' problem: given numbers, or the slope of a quadratic."""
    if case["gradients"] == "quadratic":
        scales, widths = torch.tensor([1.0, 3, 9], dtype=FLOAT)[:, None], torch.tensor([1.0, 2, 4, 8], dtype=FLOAT)
        slope = scales * widths * (params["actor.0.weight"] - (ROW * COLUMN + 1).cos() / 2)
        return {"actor.0.weight": slope, "b": widths * (params["b"] - (COLUMN - 1) / 4)}
    weight = (0.7 * t + 0.9 * ROW + 1.3 * COLUMN).cos() + 0.1 * (ROW - COLUMN)
    return {"actor.0.weight": weight[None], "b": (0.5 * t + 1.1 * COLUMN).sin()[None, None]}


@pytest.mark.parametrize("name", SETTINGS)
def test_test_vectors(name: str) -> None:
    """The layer norm that Normalize-and-Project needs is there, and does not move; b is the bias of another layer."""
    case = VECTORS[name]
    recipe, settings = SETTINGS[name]
    per_rollout = int(name[-1]) if recipe == "adam_rel" else 1
    params = {"actor.0.weight": (1 + ROW + 2.3 * COLUMN).sin()[None], "b": (2 + 0.6 * COLUMN).cos()[None, None]}
    still = {"actor.0.norm.weight": torch.zeros(1, 1, 4, dtype=FLOAT)}
    optimizer = make(recipe, lr=case["lr"], **settings)
    state = optimizer.init(params | still)
    for t in range(1, case["steps"] + 1):
        start = torch.tensor([(t - 1) % per_rollout == 0])
        updates, state = optimizer.update(gradient(case, t, params) | still, state, params | still, rollout_start=start)
        params = apply_updates(params, updates)
    tolerance = 2e-8 if name in OTHER_SUMS else 1e-10
    for leaf, expected in ((params["actor.0.weight"], case["W"]), (params["b"], case["b"])):
        torch.testing.assert_close(leaf.flatten(), torch.tensor(expected, dtype=FLOAT), rtol=0, atol=tolerance)


def noise(seed: int) -> Params:
    """Numbers of three members."""
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(3, *shape, generator=random, dtype=FLOAT) for name, shape in SHAPES.items()}


def noisy(params: Params, step: int) -> Params:
    """A gradient that pulls to 0, with noise."""
    random = noise(step)
    return {name: leaf + random[name] for name, leaf in params.items()}


def walk(optimizer: Optimizer, params: Params, **extra_args: Callable[[int], Tensor]) -> Params:
    state = optimizer.init(params)
    for step in range(STEPS):
        args = {name: value(step) for name, value in extra_args.items()}
        updates, state = optimizer.update(noisy(params, step), state, params, **args)
        params = apply_updates(params, updates)
    return params


def torch_walk(
    member: int,
    optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer],
    change: Callable[[int, torch.optim.Optimizer, dict[str, Tensor], dict[str, Tensor]], None],
) -> Params:
    """The same walk of one member with an optimizer of PyTorch.

    ``change(step, optimizer, parameters, before)`` comes behind each step, and before the first one with step -1.
    """
    params = {name: leaf[member].clone().requires_grad_() for name, leaf in noise(-1).items()}
    stepper = optimizer(list(params.values()))
    with torch.no_grad():
        change(-1, stepper, params, params)
        for step in range(STEPS):
            for name, leaf in params.items():
                leaf.grad = leaf + noise(step)[name][member]
            before = {name: leaf.clone() for name, leaf in params.items()}
            stepper.step()
            change(step, stepper, params, before)
    return params


def assert_walks_are_the_same(ours: Params, theirs: Callable[[int], Params], members: int = 3) -> None:
    start = noise(-1)
    for k in range(members):
        for name, leaf in theirs(k).items():
            torch.testing.assert_close(ours[name][k], leaf.detach(), rtol=1e-10, atol=1e-10)
            if name != "actor.1.weight":
                assert not torch.equal(ours[name][k], start[name][k])


def part(table: Sequence[Mapping[str, Any]], members: Sequence[int], break_at: int = -1) -> Params:
    """Parameters in float32 of some members of a population after 30 steps, with a checkpoint before one of them."""
    params, rows = {name: leaf.float()[list(members)] for name, leaf in noise(-1).items()}, list(members)
    optimizer = from_config([table[k] for k in rows])
    state = optimizer.init(params)
    for step in range(30):
        if step == break_at:
            state = optimizer.load(copy.deepcopy(optimizer.dump(state)), params)
        grads = {name: leaf + 0.3 * noise(step)[name].float()[rows] for name, leaf in params.items()}
        args = {"fisher_vector_product": Double(), "progress": torch.full((len(rows),), step / 30, dtype=FLOAT)}
        updates, state = optimizer.update(grads, state, params, **args)
        params = apply_updates(params, updates)
    return params


class Double:
    """A Fisher matrix that is the same for all members."""

    def __call__(self, vector: Params) -> Params:
        return {name: 2 * leaf for name, leaf in vector.items()}

    def take(self, members: Tensor) -> "Double":
        return self


AROUND: list[Mapping[str, Any]] = [
    {"trac": True, "trac_s_prev": 0.1},
    {"trac": True, "trac_s_prev": 0.1, "cautious": True, "max_grad_norm": 2.0, "lookahead_steps": 3},
    {"trac": True, "trac_s_prev": 0.1, "groups": {"*.bias": {"trac": False}}, "normalize_and_project": 2},
    {"cautious": True, "kl_limit": 0.01, "kl_backtracking": False, "schedule": {"kl_limit": "linear"}},
]


@pytest.mark.parametrize("settings", AROUND, ids=str)
@pytest.mark.parametrize("name", ["adamw", "torch.optim:Adam"])
def test_a_member_has_its_bits_alone_together_and_resumed(name: str, settings: Mapping[str, Any]) -> None:
    tables = [{"name": name, "lr": rate, **settings} for rate in RATES]
    together = part(tables, [0, 1, 2], break_at=11)
    for k in range(3):
        for leaf, value in part(tables, [k]).items():
            assert torch.equal(value[0], together[leaf][k])
            assert not torch.equal(value[0], noise(-1)[leaf][k].float())
    mixed = part([tables[0], {"name": "sgd"}, tables[2]], [2, 1, 0])
    assert all(torch.equal(leaf[[2, 0]], together[name][[0, 2]]) for name, leaf in mixed.items())


RATES = [0.01, 0.03, 0.1]


def test_adam_rel_is_adam_whose_clock_begins_anew() -> None:
    """Members of one population begin rollouts at different steps."""

    def starts(step: int) -> Tensor:
        return torch.tensor([step % (k + 2) == 0 for k in range(3)])

    def theirs(k: int) -> Params:
        def restart(step: int, optimizer: torch.optim.Optimizer, params: Params, before: Params) -> None:
            if starts(step + 1)[k]:
                for state in optimizer.state.values():
                    state["step"].zero_()

        return torch_walk(k, lambda leaves: torch.optim.Adam(leaves, RATES[k]), restart)

    assert_walks_are_the_same(walk(make("adam_rel", lr=RATES), noise(-1), rollout_start=starts), theirs)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_caution_is_timms_rule_and_leaves_decay_alone(decay: float) -> None:
    """The decay that AdamW adds to its step is neither masked nor lengthened."""
    dropped: list[float] = []

    def theirs(k: int) -> Params:
        def mask(step: int, optimizer: torch.optim.Optimizer, params: Params, before: Params) -> None:
            for name, leaf in params.items() if step >= 0 else ():
                start = before[name] * (1 - RATES[k] * decay)
                update = leaf - start
                agrees = (update * leaf.grad < 0).double()
                dropped.append(1 - agrees.mean().item())
                leaf.copy_(start + update * agrees / agrees.mean().clamp(min=1e-3))

        return torch_walk(k, lambda leaves: torch.optim.AdamW(leaves, RATES[k], weight_decay=decay), mask)

    ours = make("adamw", lr=RATES, weight_decay=decay, cautious=True)
    assert_walks_are_the_same(walk(ours, noise(-1)), theirs)
    assert 0.2 < sum(dropped) / len(dropped) < 0.8


def test_caution_is_the_same_around_optimizers_that_are_no_chains() -> None:
    chained, adapted = (
        walk(make(name, lr=0.1, momentum=0.9, cautious=True), noise(-1)) for name in ("momentum", "torch.optim:SGD")
    )
    for name, leaf in chained.items():
        torch.testing.assert_close(leaf, adapted[name], rtol=1e-12, atol=1e-12)


def test_caution_does_not_hide_numbers_that_are_none() -> None:
    """Nor does it divide by nothing where no element agrees."""
    optimizer = make("momentum", lr=1.0, momentum=0.5, cautious=True)
    params = {"w": torch.zeros(1, 3)}
    _, state = optimizer.update({"w": torch.full((1, 3), 5.0)}, optimizer.init(params), params)
    updates, _ = optimizer.update({"w": torch.full((1, 3), -1.0)}, state, params)
    assert updates["w"].tolist() == [[0.0, 0.0, 0.0]]
    updates, _ = optimizer.update({"w": torch.tensor([[math.nan, 1.0, 1.0]])}, state, params)
    assert updates["w"].isnan().tolist() == [[True, False, False]]


def test_erfi() -> None:
    x = torch.cat([torch.linspace(-26, 26, 4001, dtype=FLOAT), torch.logspace(-300, 1.4, 999, dtype=FLOAT)])
    expected = torch.from_numpy(scipy.special.erfi(x.numpy()))
    for values in (erfi(x), deterministic_map(erfi, x)):
        torch.testing.assert_close(values, torch.where(x == 0, values, expected), rtol=1e-13, atol=0)
    assert deterministic_map(erfi, torch.tensor([math.nan, 0.0], dtype=FLOAT)).isnan().tolist() == [True, False]


def trac_walk(k: int, s_prev: float) -> tuple[Params, list[float]]:
    """TRAC as in the paper's Algorithm 1, with D kept, around PyTorch's Adam; and the scales."""
    betas = torch.tensor([0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999], dtype=FLOAT)
    start = {name: leaf[k] for name, leaf in noise(-1).items()}
    delta = {name: torch.zeros_like(leaf) for name, leaf in start.items()}
    tuners = {"sigma": torch.full_like(betas, 1e-8), "variance": torch.zeros_like(betas)}
    scales: list[float] = []

    def follow(step: int, optimizer: torch.optim.Optimizer, params: Params, before: Params) -> None:
        if step < 0:
            return
        slope = sum((delta[name] * leaf.grad).sum() for name, leaf in params.items())
        for name, leaf in params.items():
            delta[name] += leaf - before[name]
        tuners["variance"] = betas**2 * tuners["variance"] + slope**2
        tuners["sigma"] = betas * tuners["sigma"] - slope
        argument = tuners["sigma"] / ((2 * tuners["variance"]).sqrt() + 1e-8)
        terms = scipy.special.erfi(argument.numpy()) / scipy.special.erfi(0.5**0.5)
        scales.append(max(s_prev * terms.sum(), 0.0))
        for name, leaf in params.items():
            leaf.copy_(start[name] + scales[-1] * delta[name])

    return torch_walk(k, lambda leaves: torch.optim.Adam(leaves, RATES[k]), follow), scales


def test_trac_is_its_algorithm() -> None:
    """Also of a member whose scale is 0 at times, and of one that has hardly begun."""
    s_prev = [1e-8, 0.05, 0.5]
    walks = [trac_walk(k, s_prev[k]) for k in range(3)]
    ours = walk(make("adam", lr=RATES, trac=True, trac_s_prev=s_prev), noise(-1))
    assert_walks_are_the_same(ours, lambda k: walks[k][0])
    assert {scale == 0 for _, scales in walks for scale in scales} == {True, False}


def test_trac_is_that_of_pytorch_optimizer() -> None:
    """On a quadratic, where the scale stays above 0: there, too, D is computed again from p - p0."""
    po = pytest.importorskip("pytorch_optimizer")
    torch.set_default_dtype(FLOAT)
    try:
        theirs = torch.nn.Parameter(noise(0)["actor.0.weight"][0].clone())
        reference = po.TRAC(torch.optim.Adam([theirs], 0.01), s_prev=0.05)
        params = {"w": noise(0)["actor.0.weight"][:1]}
        optimizer = make("adam", lr=0.01, trac=True, trac_s_prev=0.05)
        state = optimizer.init(params)
        for _ in range(STEPS):
            theirs.grad = 3.0 * theirs.detach()
            reference.step()
            updates, state = optimizer.update({"w": 3.0 * params["w"]}, state, params)
            params = apply_updates(params, updates)
            assert diagnostics(state)["trac_scale"].item() > 0
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(params["w"][0], theirs.detach(), rtol=0, atol=1e-5)
    assert (params["w"][0] - noise(0)["actor.0.weight"][0]).abs().min() > 1e-3


def test_trac_starts_in_float32() -> None:
    """Where p - p0 would be lost in the digits of p, as it is in the authors' code."""
    params = {"w": torch.full((1, 16), 2.0)}
    optimizer = make("adam", lr=0.01, trac=True)
    state = optimizer.init(params)
    for _ in range(300):
        updates, state = optimizer.update({"w": params["w"]}, state, params)
        params = apply_updates(params, updates)
    assert params["w"].abs().max() < 0.5


def test_projection_keeps_the_length_of_weight_and_bias_together() -> None:
    """Against Adam with the projection written out, of members that project after 1, 2 and 3 steps."""

    def theirs(k: int) -> Params:
        start = noise(-1)
        names = ("actor.0.weight", "actor.0.bias")
        length = sum(start[name][k].square().sum() for name in names).sqrt()

        def project(step: int, optimizer: torch.optim.Optimizer, params: Params, before: Params) -> None:
            if step >= 0 and (step + 1) % (k + 1) == 0:
                now = sum(params[name].square().sum() for name in names).sqrt()
                for name in names:
                    params[name].mul_(length / now)

        return torch_walk(k, lambda leaves: torch.optim.Adam(leaves, RATES[k]), project)

    ours = walk(make("adam", lr=RATES, normalize_and_project=[1, 2, 3]), noise(-1))
    assert_walks_are_the_same(ours, theirs)


def test_a_projection_changes_no_output() -> None:
    """Up to the 1e-5 inside the root of the layer norm; heads and norms are left alone."""
    from pgkit.nn.network import LayerNormMLP

    network = LayerNormMLP(4, (8, 8), "tanh", (1.0, 1.0))
    params = {name: leaf.double() for name, leaf in network.init("actor", [0, 1], 3).items()}
    params["actor.2.weight"] = torch.ones(2, 8, 2, dtype=FLOAT)
    grads = {name: -leaf - 1 for name, leaf in params.items()}
    obs = torch.randn(2, 5, 4, dtype=FLOAT, generator=torch.Generator().manual_seed(0))
    free, projected = (make("sgd", lr=3.0, normalize_and_project=every) for every in (2, 1))
    ends = [apply_updates(params, part.update(grads, part.init(params), params)[0]) for part in (free, projected)]
    torch.testing.assert_close(*(network.apply(end, "actor", obs) for end in ends), rtol=0, atol=1e-3)
    same = [name for name in params if torch.equal(ends[0][name], ends[1][name])]
    moved = {"actor.0.weight", "actor.0.bias", "actor.1.weight", "actor.1.bias"}
    assert set(same) == params.keys() - moved
    assert {"actor.0.norm.weight", "actor.2.weight"} < set(same)


def test_a_network_without_layer_norms_cannot_be_projected() -> None:
    optimizer = from_config([{"name": "sgd", "normalize_and_project": 1, "critic": {"name": "adam"}}])
    with pytest.raises(PgkitError, match=r"^normalize_and_project is for .*: set policy.layer_norm = true$"):
        optimizer.init({"actor.0.weight": torch.ones(1, 2, 2), "critic.0.weight": torch.ones(1, 2, 2)})


def test_parts_are_of_each_table_or_of_the_whole_policy() -> None:
    """TRAC and caution belong to a table, as clipping does; what acts on the whole policy stands in the first one."""
    groups = describe({"name": "sgd", "trac": True, "normalize_and_project": 5, "critic": {"cautious": True}})
    assert [groups[label]["trac"] for label in ("main", "critic")] == [True, True]
    assert [groups[label]["cautious"] for label in ("main", "critic")] == [False, True]
    assert groups["main"]["normalize_and_project"] == 5
    table = {"name": "sgd", "trac": True, "trac_s_prev": 0.1, "lookahead_steps": 2, "lookahead_alpha": 0.1}
    off = describe({**table, "critic": {"trac": False, "lookahead_steps": "none"}})["critic"]
    assert (off["trac_s_prev"], off["lookahead_alpha"]) == (1e-8, 0.5)
    assert "normalize_and_project" not in groups["critic"]
    for key, value in (("normalize_and_project", 2), ("kl_backtracking", False)):
        with pytest.raises(PgkitError, match=rf"\(critic\): {key} is of the whole policy: set optimizer.{key}"):
            describe({"name": "sgd", "kl_limit": 0.1, "critic": {key: value}})
    schedule = {"schedule": {"kl_limit": "linear"}}
    with pytest.raises(PgkitError, match=r"\(critic\): kl_limit is of the whole policy"):
        describe({"name": "sgd", "kl_limit": 0.1, "critic": schedule})


def test_limits_may_have_schedules() -> None:
    """Of clipping in each group of parameters; of the divergence once, around all groups."""
    schedule = {"kl_limit": "linear", "max_grad_norm": "linear"}
    table = {"name": "sgd", "kl_limit": 0.2, "kl_backtracking": False, "max_grad_norm": 1.0, "schedule": schedule}
    optimizer = from_config([{**table, "critic": {"name": "adam"}}])
    params = {"actor.0.weight": torch.ones(1, 2), "critic.0.weight": torch.ones(1, 2)}
    extra = {"progress": torch.tensor([0.75], dtype=FLOAT), "fisher_vector_product": lambda vector: vector}
    _, state = optimizer.update(params, optimizer.init(params), params, **extra)
    shown = {name: number.item() for name, number in diagnostics(state).items() if name.endswith(("limit", "norm"))}
    assert shown["kl_limit"] == pytest.approx(0.05)
    assert shown["main/max_grad_norm"] == shown["critic/max_grad_norm"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"cautious": "on"}, "cautious is 'on'; it must be true or false"),
        ({"trac": "yes"}, "trac is 'yes'; it must be true or false"),
        ({"trac": True, "trac_s_prev": 0.0}, "trac_s_prev is 0; it must be above 0"),
        ({"trac_s_prev": 0.1}, "trac_s_prev is for TRAC, which trac = true turns on"),
        ({"normalize_and_project": 0}, "normalize_and_project is 0; it must be at least 1"),
        ({"normalize_and_project": True}, "normalize_and_project is True; it must be a number"),
        ({"kl_limit": 0.1, "kl_backtracking": "no"}, "kl_backtracking is 'no'; it must be true or false"),
        ({"kl_backtracking": False}, "kl_backtracking is for steps that kl_limit limits"),
        ({"name": "adam_equal", "beta": 1.0}, "beta is 1; it must be at least 0 and below 1"),
        ({"name": "adam_equal", "beta1": 0.9}, "unknown key 'beta1'"),
        ({"name": "adam_rel", "reset": 2}, "unknown key 'reset'"),
        ({"trac": True, "schedule": {"trac_s_prev": "linear"}}, "unknown key 'trac_s_prev'"),
        ({"schedule": {"kl_limit": "linear"}}, "kl_limit is None; it must be a number"),
    ],
)
def test_nonsense_is_one_line(table: dict[str, Any], problem: str) -> None:
    with pytest.raises(PgkitError, match=re.escape(problem)) as error:
        from_config([{"name": "adam", **table}])
    assert "\n" not in str(error.value)


def test_without_trials_the_fisher_matrix_alone_decides() -> None:
    """The divergence is twice what the matrix says; backtracking notices, and its absence needs no trial."""
    params = {"actor.0.weight": torch.zeros(1, 2), "critic.0.weight": torch.zeros(1, 2)}
    grads = {name: torch.tensor([[3.0, 4.0]]) for name in params}
    extra = {
        "fisher_vector_product": lambda vector: vector,
        "trial": lambda moved: (torch.zeros(1), moved["actor.0.weight"].square().sum(1)),
    }
    ends = {}
    for backtracking, required in ((True, {"fisher_vector_product", "trial"}), (False, {"fisher_vector_product"})):
        optimizer = make("sgd", lr=1.0, kl_limit=0.005, kl_backtracking=backtracking)
        assert optimizer.requires == required
        given = {name: extra[name] for name in required}
        updates, state = optimizer.update(grads, optimizer.init(params), params, **given)
        assert updates["critic.0.weight"].tolist() == [[-3.0, -4.0]]
        ends[backtracking] = [diagnostics(state)[name].item() for name in ("step_scale", "step_kl")]
    assert ends[False] == pytest.approx([0.02, 0.005])
    assert ends[True] == pytest.approx([0.02 * 0.8**2, 0.01 * 0.8**4])
