"""Muon and SOAP against published implementations, matrix by matrix."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, Transform, apply_updates, chain, from_config, make
from pgkit.optim.newton_schulz import newton_schulz
from pgkit.optim.roles import HIDDEN
from pgkit.types import Params

VECTORS = json.loads((Path(__file__).parent / "matrix_vectors.json").read_text())
"""Parameters after each step, all elements, by the reference that each case names; see ``source`` in the file."""


def w_grad(t: int) -> Tensor:
    i = torch.arange(3.0, dtype=torch.float64)[:, None]
    j = torch.arange(4.0, dtype=torch.float64)
    return torch.cos(0.7 * t + 0.9 * i + 1.3 * j) + 0.1 * (i - j)


def b_grad(t: int) -> Tensor:
    return torch.sin(0.5 * t + 1.1 * torch.arange(4.0, dtype=torch.float64))


def initial() -> Params:
    i = torch.arange(3.0, dtype=torch.float64)[:, None]
    j = torch.arange(4.0, dtype=torch.float64)
    weight = torch.sin(1 + i + 2.3 * j)
    return {"trunk.1.weight": weight[None], "trunk.1.bias": torch.cos(2 + 0.6 * j)[None, None]}


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_the_first_steps_of_the_reference(case: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jordan's code divides by |n| + eps, torch and pgkit by max(|n|, eps), which is the only difference.

    Moonshot's Adam has eps before the bias correction, 1.5e-10 away.
    """
    if case["adds_eps"]:
        monkeypatch.setattr(torch, "maximum", torch.add)
    optimizer = make(**case["settings"])
    params = initial()
    state = optimizer.init(params)
    for t, expected in enumerate(case["steps"], 1):
        grads = {"trunk.1.weight": w_grad(t)[None], "trunk.1.bias": b_grad(t)[None, None]}
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
        for name, leaf in params.items():
            reference = torch.tensor(expected[name], dtype=torch.float64)
            torch.testing.assert_close(leaf.flatten(), reference, rtol=0, atol=case["atol"])


def random_tree(shapes: Mapping[str, tuple[int, ...]], members: int, random: torch.Generator) -> Params:
    return {name: torch.randn(members, *shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}


MUON_SETTINGS = [
    {"lr": 0.02, "weight_decay": 0.0},
    {"lr": 1e-3, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.1, "momentum": 0.5, "nesterov": False, "ns_steps": 3},
    {"lr": 0.02, "momentum": 0.0, "eps": 1.0},
]


@pytest.mark.parametrize("settings", MUON_SETTINGS, ids=str)
def test_muon_equals_torch(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, for which torch's cast to bfloat16 is switched off; its matrices are (out, in)."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    random = torch.Generator().manual_seed(0)
    params = random_tree({f"trunk.{k}.weight": (size, 9 - size) for k, size in enumerate((3, 6, 2), 1)}, 2, random)
    leaves = [torch.nn.Parameter(leaf[k].T.clone()) for k in range(2) for leaf in params.values()]
    reference = torch.optim.Muon(leaves, **settings)
    optimizer = make("muon", **settings)
    state = optimizer.init(params)
    for _ in range(200):
        grads = random_tree({name: leaf.shape[1:] for name, leaf in params.items()}, 2, random)
        for leaf, grad in zip(leaves, (leaf[k].T for k in range(2) for leaf in grads.values()), strict=True):
            leaf.grad = grad.clone()
        reference.step()
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates)
    for leaf, expected in zip((leaf[k].T for k in range(2) for leaf in params.values()), leaves, strict=True):
        torch.testing.assert_close(leaf, expected.detach(), rtol=0, atol=1e-11)


def test_newton_schulz_brings_singular_values_near_one() -> None:
    """In float32, of matrices of every orientation, whatever their length."""
    random = torch.Generator().manual_seed(0)
    for shape in ((16, 16), (5, 40), (40, 5), (1, 7)):
        matrices = torch.randn(3, *shape, generator=random)
        scaled = matrices / matrices.norm(dim=(1, 2), keepdim=True)
        values = torch.linalg.svdvals(newton_schulz(scaled, 5))
        before = torch.linalg.svdvals(scaled)
        assert (before.min() < 0.1 * before.max()) == (shape == (16, 16))
        assert (values < 1.25).all()
        assert (values[before > 0.02] > 0.65).all()


def reference_soap(param: np.ndarray, grads: np.ndarray, every: int) -> list[np.ndarray]:
    """One matrix by the official code's order of operations, which holds m in the rotated basis."""
    beta, eps, lr, decay = 0.9, 1e-8, 0.01, 0.1
    averages = [(1 - beta) * g for g in (grads[0] @ grads[0].T, grads[0].T @ grads[0])]
    left, right = (np.linalg.eigh(average)[1][:, ::-1] for average in averages)
    m = v = np.zeros_like(param)
    path = [param]
    for s, grad in enumerate(grads[1:], 1):
        rotated = left.T @ grad @ right
        m = beta * m + (1 - beta) * rotated
        v = beta * v + (1 - beta) * rotated**2
        step = lr * np.sqrt(1 - beta**s) / (1 - beta**s) * (left @ (m / (np.sqrt(v) + eps)) @ right.T)
        param = (param - step) * (1 - lr * decay)
        path.append(param)
        m = left @ m @ right.T
        averages = [
            beta * average + (1 - beta) * g for average, g in zip(averages, (grad @ grad.T, grad.T @ grad), strict=True)
        ]
        if s % every == 0:
            order = np.argsort(-np.diag(left.T @ averages[0] @ left))
            left, v = np.linalg.qr(averages[0] @ left[:, order])[0], v[order]
            order = np.argsort(-np.diag(right.T @ averages[1] @ right))
            right, v = np.linalg.qr(averages[1] @ right[:, order])[0], v[:, order]
        m = left.T @ m @ right
    return path


@pytest.mark.parametrize(
    ("shape", "every", "mode"), [((6, 5), 1, "graphs"), ((5, 5), 3, "graphs"), ((4, 5), 10, "off")]
)
def test_soap_equals_a_single_matrix(
    shape: tuple[int, int], every: int, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shapes whose first gradient leaves no basis free but for signs, which change nothing."""
    set_compile_mode(monkeypatch, mode)
    random = torch.Generator().manual_seed(0)
    params = random_tree({"w": shape}, 2, random)
    initial_params = params
    grads = [random_tree({"w": shape}, 2, random) for _ in range(200)]
    settings = {"lr": 0.01, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.1, "precondition_frequency": every}
    optimizer = make("soap", **settings)
    state = optimizer.init(params)
    path = []
    for each in grads:
        updates, state = optimizer.update(each, state, params)
        params = apply_updates(params, updates)
        path.append(params["w"])
    for k in range(2):
        of_member = np.stack([each["w"][k].numpy() for each in grads])
        expected = np.stack(reference_soap(initial_params["w"][k].numpy(), of_member, every))
        np.testing.assert_allclose(torch.stack(path)[:, k].numpy(), expected, rtol=0, atol=1e-11)


def test_soap_without_bases_is_adam_that_skips_a_step() -> None:
    """As for biases; and with max_precond_dim, for long sides of matrices."""
    random = torch.Generator().manual_seed(0)
    params = others = random_tree({"w": (4, 3), "b": (1, 3)}, 1, random)
    soap = make("soap", weight_decay=0.0, beta1=0.9, beta2=0.9, eps=1e-30, max_precond_dim=2)
    adam = make("adam", lr=3e-3, beta1=0.9, beta2=0.9, eps=1e-30)
    state, other_state = soap.init(params), adam.init(params)
    assert state["leaf_state"]["L"] == state["leaf_state"]["QR"] == {}
    for t in range(20):
        grads = random_tree({"w": (4, 3), "b": (1, 3)}, 1, random)
        updates, state = soap.update(grads, state, params)
        params = apply_updates(params, updates)
        if t:
            updates, other_state = adam.update(grads, other_state, others)
            others = apply_updates(others, updates)
        for name, leaf in params.items():
            torch.testing.assert_close(leaf, others[name], rtol=1e-12, atol=1e-14)


def test_a_gradient_of_nan_leaves_the_bases_of_others_alone() -> None:
    """LAPACK refuses such a matrix, and would refuse those of the whole population."""
    random = torch.Generator().manual_seed(0)
    params = random_tree({"w": (4, 3)}, 2, random)
    optimizer = make("soap", precondition_frequency=1)
    alone = make("soap", precondition_frequency=1)
    second = {"w": params["w"][1:]}
    state, alone_state = optimizer.init(params), alone.init(second)
    for _ in range(3):
        grads = random_tree({"w": (4, 3)}, 2, random)
        grads["w"][0, 0, 0] = torch.nan
        updates, state = optimizer.update(grads, state, params)
        alone_updates, alone_state = alone.update({"w": grads["w"][1:]}, alone_state, second)
        assert torch.equal(updates["w"][1:], alone_updates["w"])
    assert updates["w"][0].isnan().any()
    assert alone_updates["w"].all()


LAYERS = {
    f"{network}.{layer}.weight": shape
    for network in ("actor", "critic")
    for layer, shape in enumerate(((3, 5), (5, 5), (5, 2)))
} | {"actor.1.bias": (1, 5)}


def moved(optimizer: Optimizer) -> dict[str, Tensor]:
    """The singular values of each leaf's first update, ``(K,)``."""
    params = random_tree(LAYERS, 1, torch.Generator().manual_seed(0))
    grads = random_tree(LAYERS, 1, torch.Generator().manual_seed(1))
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return {name: torch.linalg.svdvals(leaf[0]) for name, leaf in updates.items()}


def orthogonal(optimizer: Optimizer) -> list[str]:
    """The leaves whose first update has singular values that are all about 1."""
    return [name for name, values in moved(optimizer).items() if len(values) > 1 and (values - 1).abs().max() < 0.35]


MUON = {"name": "muon", "lr": 1.0, "weight_decay": 0.0}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (MUON, ["actor.1.weight", "critic.1.weight"]),
        ({**MUON, "critic": {"name": "adam"}}, ["actor.1.weight"]),
        ({"name": "adam", "critic": MUON}, ["critic.1.weight"]),
        ({**MUON, "groups": {"*.2.*": {"name": "sgd"}}}, ["actor.1.weight", "critic.1.weight"]),
        ({"name": "sgd", "groups": {"*.1.weight": MUON}}, ["actor.1.weight", "critic.1.weight"]),
        ({"name": "sgd", "groups": {"*.2.weight": MUON}}, []),
    ],
    ids=str,
)
def test_muon_is_for_hidden_matrices(table: Mapping[str, Any], expected: list[str]) -> None:
    """Also where a group has no other layers, whose names alone say what is hidden."""
    assert orthogonal(from_config([table])) == expected


def test_other_leaves_have_a_rate_of_their_own() -> None:
    optimizer = make("muon", lr=1.0, weight_decay=0.0, adam_lr=1e-3, schedule={"adam_lr": "linear"})
    params = random_tree(LAYERS, 1, torch.Generator().manual_seed(0))
    progress = torch.tensor([0.5], dtype=torch.float64)
    updates, state = optimizer.update(params, optimizer.init(params), params, progress=progress)
    torch.testing.assert_close(updates["actor.1.bias"].abs(), torch.full((1, 1, 5), 5e-4).double(), rtol=1e-6, atol=0)
    assert set(state["leaf_state"]["b"]) == {"actor.1.weight", "critic.1.weight"}
    assert set(state["leaf_state"]["m"]) == LAYERS.keys() - {"actor.1.weight", "critic.1.weight"}


def test_members_may_differ_in_whole_numbers() -> None:
    tables = [{**MUON, "ns_steps": steps} for steps in (1, 5)]
    params = random_tree(LAYERS, 2, torch.Generator().manual_seed(0))
    optimizer = from_config(tables)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    for k, table in enumerate(tables):
        single = from_config([table])
        of_member = {name: leaf[k : k + 1] for name, leaf in params.items()}
        alone, _ = single.update(of_member, single.init(of_member), of_member)
        assert all(torch.equal(leaf[k], alone[name][0]) for name, leaf in updates.items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "muon", "adjust_lr_fn": "rms"}, "adjust_lr_fn is 'rms'; it must be 'original' or 'match_rms_adamw'"),
        ({"name": "muon", "ns_steps": 2.5}, "ns_steps is 2.5; it must be one whole number for all members"),
        ({"name": "muon", "adam_lr": 0.0}, "adam_lr is 0; it must be above 0"),
        ({"name": "soap", "max_precond_dim": [8, 9]}, "max_precond_dim is [8, 9]; it must be one whole number"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError) as error:
        make(**settings)
    assert message in str(error.value)


def of_policy(*layers: str) -> Params:
    return {f"{layer}.{leaf}": torch.ones(2, *shape) for layer in layers for leaf, shape in LAYER.items()}


LAYER: Mapping[str, tuple[int, int]] = {"weight": (4, 4), "bias": (1, 4)}


@pytest.mark.parametrize("around", [{}, {"max_grad_norm": 1.0, "cautious": True}, {"trac": True, "kl_limit": 0.01}])
def test_muon_without_a_hidden_matrix_is_refused_in_one_line(around: Mapping[str, Any]) -> None:
    """It would be adamw in silence. That of a group is fine if the policy has one somewhere."""
    for settings in ({}, {"critic": {"lr": 0.1}}, {"groups": {"*.bias": {"adam_lr": 0.1}}}):
        optimizer = from_config([{"name": "muon", **around, **settings}] * 2)
        with pytest.raises(PgkitError, match=r"the policy has none: give policy\.hidden two layers or more") as error:
            optimizer.init(of_policy("actor.0", "actor.1", "critic.0", "critic.1"))
        assert "\n" not in str(error.value)
        optimizer.init(of_policy("actor.0", "actor.1", "actor.2", "critic.0", "critic.1"))
        optimizer.init(of_policy("trunk.0", "trunk.1", "actor.0", "critic.0"))


def test_evaluation_parameters_of_leaves_that_a_transform_is_not_for_are_their_own() -> None:
    judged = Transform(
        lambda grad, leaf, scalars: grad,
        leaf_state={"seen": 2.0},
        roles=HIDDEN,
        eval_param=lambda leaf, scalars: leaf.param + leaf.state["seen"],
    )
    optimizer = chain(judged)
    params = of_policy("actor.0", "actor.1", "actor.2")
    assert optimizer.eval_params is not None
    shown = optimizer.eval_params(params, optimizer.init(params))
    assert {name: leaf.unique().tolist() for name, leaf in shown.items()} == {
        name: [3.0 if name == "actor.1.weight" else 1.0] for name in params
    }


def test_decay_of_soap_is_not_masked_by_caution() -> None:
    """As that of adamw: it stands behind the mask, at the new parameters."""
    random = torch.Generator().manual_seed(0)
    params = {"w": torch.ones(1, 4, 4)}
    grads = [{"w": torch.randn(1, 4, 4, generator=random)} for _ in range(4)]
    last = []
    for decay in (0.0, 0.5):
        optimizer = make("soap", lr=0.1, weight_decay=decay, cautious=True)
        state = optimizer.init(params)
        for grad in grads:
            updates, state = optimizer.update(grad, state, params)
        last.append(updates["w"])
    assert 0 < (last[0] == 0).sum() < last[0].numel()
    torch.testing.assert_close(last[1], last[0] - 0.05 * (params["w"] + last[0]))
