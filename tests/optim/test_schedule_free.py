"""Schedule-free optimizers: gradients are taken at the parameters y, and the average x is what is evaluated."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.trees import assert_equal
from helpers.trials import AnyTrial

from pgkit.errors import PgkitError
from pgkit.optim import Optimizer, Transform, apply_updates, chain, from_config, make, take_tree
from pgkit.types import Params

VECTORS = json.loads((Path(__file__).parent / "vectors" / "schedule_free.json").read_text(encoding="utf-8"))
NAMES = ("schedule_free_sgd", "schedule_free_adamw")
SHAPES = {"actor.0.weight": (3, 21), "actor.0.bias": (1, 21), "critic.0.weight": (21, 1)}
TABLES: Sequence[Mapping[str, Any]] = [
    {"name": "schedule_free_adamw", "lr": 0.01, "warmup_steps": 3},
    {"name": "adam", "lr": 0.01},
    {"name": "schedule_free_adamw", "lr": 0.02, "beta1": 0.8, "weight_decay": 0.1},
    {"name": "schedule_free_sgd", "lr": 0.1, "max_grad_norm": 1.0, "critic": {"name": "adam"}},
    {"name": "schedule_free_sgd", "lr": 0.1, "reset_moments": 3, "groups": {"*.bias": {"lr": 0.2}}},
    {"name": "sgd", "critic": {"name": "schedule_free_adamw"}, "max_layer_norm": 1.0},
]


def options(hyper: Mapping[str, Any]) -> dict[str, Any]:
    """Hyperparameters of the reference as pgkit has them."""
    named = {key: value for key, value in hyper.items() if key != "betas"}
    return named | dict(zip(("beta1", "beta2"), hyper.get("betas", ()), strict=False))


def shown(optimizer: Optimizer, params: Params, state: Any) -> Params:
    assert optimizer.eval_params is not None
    return optimizer.eval_params(params, state)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_steps_equal_those_of_schedulefree(
    case: Mapping[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers written down from schedulefree 1.4.1 in float64, for three members at once."""
    if not compiled:
        set_compile_mode(monkeypatch, "off")
    i, j = torch.meshgrid(torch.arange(3.0).double(), torch.arange(4.0).double(), indexing="ij")
    params = {"W": torch.sin(1 + i + 2.3 * j).repeat(3, 1, 1), "b": torch.cos(2 + 0.6 * j[:1]).repeat(3, 1, 1)}
    (name,) = (name for name in NAMES if case["name"].startswith(name))
    optimizer = make(name, **options(case["hyper"]))
    state = optimizer.init(params)
    assert all(torch.equal(leaf, params[name]) for name, leaf in shown(optimizer, params, state).items())
    for step in case["steps"]:
        t = step["t"]
        grads = {"W": torch.cos(0.7 * t + 0.9 * i + 1.3 * j) + 0.1 * (i - j), "b": torch.sin(0.5 * t + 1.1 * j[:1])}
        updates, state = optimizer.update({name: g.repeat(3, 1, 1) for name, g in grads.items()}, state, params)
        params = apply_updates(params, updates)
        for name, leaf in shown(optimizer, params, state).items():
            for tensor, expected in ((params[name], step[name]), (leaf, step[f"{name}_eval"])):
                for row in tensor:
                    np.testing.assert_allclose(row.flatten().numpy(), expected, rtol=0, atol=1e-10)


def random_params(members: int, seed: int, dtype: torch.dtype = torch.float32) -> Params:
    random = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(members, *shape, generator=random, dtype=torch.float64).to(dtype)
        for name, shape in SHAPES.items()
    }


HYPER: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "SGDScheduleFree": [
        {"lr": 1.0, "momentum": 0.9},
        {"lr": 0.1, "momentum": 0.5, "warmup_steps": 20, "weight_decay": 0.01},
        {"lr": 0.01, "momentum": 0.98, "r": 2.0, "weight_lr_power": 0.0},
    ],
    "AdamWScheduleFree": [
        {"lr": 0.0025},
        {"lr": 0.1, "betas": (0.95, 0.99), "warmup_steps": 20, "weight_decay": 0.1, "eps": 1e-3},
        {"lr": 0.01, "betas": (0.5, 0.9), "r": 0.5, "weight_lr_power": 1.0},
    ],
}


@pytest.mark.parametrize("reference", HYPER)
def test_200_random_steps_equal_those_of_schedulefree(reference: str) -> None:
    cls = getattr(pytest.importorskip("schedulefree"), reference)
    name = f"schedule_free_{reference.removesuffix('ScheduleFree').lower()}"
    random = torch.Generator().manual_seed(0)
    for hyper in HYPER[reference]:
        params = random_params(1, 1, torch.float64)
        theirs = [leaf[0].clone().requires_grad_() for leaf in params.values()]
        other = cls(theirs, **hyper)
        optimizer = make(name, **options(hyper))
        state = optimizer.init(params)
        other.train()
        for _ in range(200):
            grads = {name: torch.randn(leaf.shape, generator=random).double() for name, leaf in params.items()}
            for leaf, grad in zip(theirs, grads.values(), strict=True):
                leaf.grad = grad[0].clone()
            updates, state = optimizer.update(grads, state, params)
            params = apply_updates(params, updates)
            other.step()
            assert largest_difference(params, theirs) < 1e-10
        assert largest_difference(params, random_params(1, 1, torch.float64).values()) > 0.01
        other.eval()
        assert largest_difference(shown(optimizer, params, state), theirs) < 1e-10


def largest_difference(params: Params, others: Any) -> float:
    """Relative to the largest value of each leaf."""
    pairs = [(leaf[0], other.detach().view(leaf[0].shape)) for leaf, other in zip(params.values(), others, strict=True)]
    return max(((leaf - other).abs().max() / other.abs().max()).item() for leaf, other in pairs)


def test_what_is_shown_is_the_average_of_where_plain_steps_lead() -> None:
    """With lr_t = lr, x is the mean of all z, and y is a tenth of the way from x to z."""
    optimizer, lr = make("schedule_free_sgd", lr=0.3), 0.3
    params = {"w": torch.ones(1, 2, dtype=torch.float64)}
    state = optimizer.init(params)
    z, visited = params["w"], []
    for step in range(20):
        grad = torch.tensor([[math.cos(step), math.sin(3 * step)]], dtype=torch.float64)
        z = z - lr * grad
        visited.append(z)
        updates, state = optimizer.update({"w": grad}, state, params)
        params = apply_updates(params, updates)
        mean = torch.stack(visited).mean(0)
        torch.testing.assert_close(shown(optimizer, params, state)["w"], mean, rtol=0, atol=1e-14)
        torch.testing.assert_close(params["w"], 0.9 * mean + 0.1 * z, rtol=0, atol=1e-14)
    assert (params["w"] - mean).abs().max() > 1e-3


class Unit:
    """A Fisher matrix: 1."""

    def __call__(self, vector: Params) -> Params:
        return vector

    def take(self, members: torch.Tensor) -> "Unit":
        return self


def walk(tables: Sequence[Mapping[str, Any]], members: Sequence[int], steps: int = 8) -> tuple[Params, Params]:
    """Parameters and evaluation parameters of these members after some steps."""
    optimizer = from_config([tables[member] for member in members])
    rows = torch.tensor(members)
    params = take_tree(random_params(len(tables), 0), rows)
    state = optimizer.init(params)
    for step in range(steps):
        grads = take_tree(random_params(len(tables), 100 + step), rows)
        updates, state = optimizer.update(
            grads, state, params, fisher_vector_product=Unit(), trial=AnyTrial(), donate=True
        )
        params = apply_updates(params, updates)
    return params, params if optimizer.eval_params is None else optimizer.eval_params(params, state)


def test_evaluation_parameters_are_those_alone_whatever_is_around() -> None:
    params, together = walk(TABLES, range(len(TABLES)))
    for k, table in enumerate(TABLES):
        _, alone = walk(TABLES, [k])
        for name, leaf in alone.items():
            assert torch.equal(leaf[0], together[name][k]), (table, name)
    moved = {name: (together[name] != leaf).flatten(1).any(1).tolist() for name, leaf in params.items()}
    assert list(moved) == list(together)
    assert moved["actor.0.weight"] == [True, False, True, True, True, False]
    assert moved["critic.0.weight"] == [True, False, True, False, True, True]


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_parameters_change_nothing_and_survive_a_checkpoint(name: str) -> None:
    tables = [{"name": name, "lr": 0.1}, {"name": name, "lr": 0.2}]
    optimizer = from_config(tables)
    params = random_params(2, 0)
    _, state = optimizer.update(random_params(2, 1), optimizer.init(params), params)
    before = optimizer.take(state, torch.arange(2))
    kept = {key: leaf.clone() for key, leaf in params.items()}
    first = shown(optimizer, params, state)
    assert_equal((params, state), (kept, before))
    again = shown(optimizer, params, optimizer.load(optimizer.dump(state), params))
    assert all(torch.equal(leaf, again[key]) for key, leaf in first.items())
    first["actor.0.bias"].fill_(7.0)  # its own memory
    assert all(torch.equal(leaf, kept[key]) for key, leaf in params.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_of_zero_at_first_changes_nothing(name: str) -> None:
    """A warmup schedule begins there: weights are 0 / 0."""
    table = {"name": name, "lr": 0.1, "schedule": {"lr": {"kind": "warmup", "warmup": 0.5}}}
    optimizer, params = from_config([table]), random_params(1, 0)
    state = optimizer.init(params)
    for step in range(3):
        progress = torch.full((1,), step / 10, dtype=torch.float64)
        updates, state = optimizer.update(random_params(1, step + 1), state, params, progress=progress)
        moved = apply_updates(params, updates)
        assert all(leaf.isfinite().all() for leaf in shown(optimizer, moved, state).values())
        if step == 0:
            assert all(torch.equal(leaf, params[key]) for key, leaf in moved.items())
        params = moved


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"lookahead_steps": 3}, "nothing behind it, such as lookahead, may change them"),
        ({"cautious": True}, "nothing behind it, such as lookahead, may change them"),
        ({"trac": True}, "trac cannot be around an optimizer that averages"),
        ({"kl_limit": 0.01}, "kl_limit cannot be around an optimizer that averages"),
        ({"normalize_and_project": 1}, "normalize_and_project cannot be around an optimizer that averages"),
        ({"momentum": 0.0}, "momentum is 0; it must be above 0 and below 1"),
        ({"schedule": {"momentum": "linear"}}, "momentum of a schedule-free optimizer cannot have a schedule"),
    ],
)
def test_what_would_break_the_average_is_refused_in_one_line(table: dict[str, Any], message: str) -> None:
    with pytest.raises(PgkitError, match=message):
        from_config([{"name": "schedule_free_sgd", **table}])


def test_evaluation_parameters_of_a_transform_of_ones_own() -> None:
    """Twice the parameters, less a state; also behind an optimizer that is no chain."""

    def step(grad: Any, leaf: Any, scalars: Any) -> Any:
        leaf.state["seen"] = grad
        return -grad

    judged = Transform(
        step,
        hyperparameters={"scale": [2.0, 3.0]},
        leaf_state={"seen": 0.0},
        eval_param=lambda leaf, scalars: scalars["scale"] * leaf.param - leaf.state["seen"],
    )
    params = {"w": torch.ones(2, 1)}
    behind_another = chain(make("torch.optim:SGD", lr=1.0), judged)  # whose update is -0.25
    for optimizer, expected in ((chain(judged), [1.25, 2.0]), (behind_another, [2.75, 4.0])):
        updates, state = optimizer.update({"w": torch.full((2, 1), 0.25)}, optimizer.init(params), params)
        assert shown(optimizer, apply_updates(params, updates), state)["w"].flatten().tolist() == expected
