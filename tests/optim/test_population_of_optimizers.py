"""A member of a population gets the bits that it gets alone, whatever its neighbours."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers.compile_mode import set_compile_mode
from helpers.trials import AnyTrial
from torch import Tensor

from pgkit.errors import PgkitError
from pgkit.kernels.pointwise import deterministic_map
from pgkit.optim import Optimizer, apply_updates, from_config, list_optimizers, put_tree, spec, take_tree
from pgkit.optim.base import checked_grads
from pgkit.optim.reductions import inner, row_sum
from pgkit.optim.update import add_updates
from pgkit.tree import map_tree
from pgkit.types import Params

Table = Mapping[str, Any]
SHAPES = {
    "trunk.0.weight": (4, 3),
    "actor.0.weight": (3, 37),
    "actor.0.bias": (1, 37),
    "actor.1.weight": (37, 2),
    "actor.1.bias": (1, 2),
    "critic.0.weight": (37, 1),
    "critic.0.bias": (1, 1),
    "actor.log_std": (5,),
    "actor.0.norm.weight": (1, 37),
}
STEPS = 12
OF_POLICIES = ("npg", "trpo")
CHAINS = [name for name in list_optimizers() if name not in OF_POLICIES]


APPLIED: list[Table] = [
    *({"name": name} for name in CHAINS),
    *({"name": name, "critic": {"name": "adam"}} for name in OF_POLICIES),
    {"name": "adam", "max_grad_norm": 1.0, "critic": {"lr": 0.1}},
    {"name": "adam", "kl_limit": 0.01, "max_grad_norm": 1.0, "lookahead_steps": 2},
    {"name": "rmsprop", "max_layer_norm": 1.0},
    {"name": "adamw", "cautious": True},
    {"name": "lion", "cautious": True, "trac": True, "trac_s_prev": 0.1, "max_grad_norm": 1.0, "lookahead_steps": 2},
    {"name": "adam", "trac": True, "critic": {"name": "sgd", "trac": False}, "normalize_and_project": 2},
    {"name": "adam", "kl_limit": 0.01, "kl_backtracking": False},
]
"""Chains of one loop and of several stages, a last stage on tensors, groups of parameters, optimizers around others."""


def tensors_of(tree: Any) -> list[Tensor]:
    leaves: list[Tensor] = []
    map_tree(lambda leaf: leaves.append(leaf) or leaf, tree)
    return leaves


def random_params(members: int, seed: int) -> Params:
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(members, *shape, generator=random) for name, shape in SHAPES.items()}


def gradients(members: int) -> list[Params]:
    return [random_params(members, 100 + step) for step in range(STEPS)]


class Diagonal:
    """A linear map, the same for all members."""

    def __call__(self, vector: Params) -> Params:
        scale = {name: 1 + torch.arange(leaf[0].numel()).view(leaf.shape[1:]) % 7 for name, leaf in vector.items()}
        return {name: leaf * scale[name] for name, leaf in vector.items()}

    def take(self, members: Tensor) -> "Diagonal":
        return self


def extra_args(step: int, members: Tensor) -> dict[str, Any]:
    """The extra arguments of a training loop, different for each member of the whole population."""
    return {
        "progress": torch.full((len(members),), step / STEPS, dtype=torch.float64) * (1 - 0.01 * members),
        "kl": 0.005 * (1.0 + (members + step) % 5),
        "rollout_start": (members + step) % 3 == 0,
        "fisher_vector_product": Diagonal(),
        "trial": AnyTrial(),
    }


def train(optimizer: Optimizer, members: Tensor, size: int) -> Params:
    """Return the parameters of some members of a population of that size after all steps."""
    params = take_tree(random_params(size, 0), members)
    state = optimizer.init(params)
    for step, grads in enumerate(gradients(size)):
        updates, state = optimizer.update(take_tree(grads, members), state, params, **extra_args(step, members))
        params = apply_updates(params, updates)
    return params


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("table", APPLIED, ids=str)
def test_apply_is_an_update_and_its_addition(table: Table, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, state, and the largest magnitude of each leaf, to the last bit; also of a member that fails."""
    if not compiled:
        set_compile_mode(monkeypatch, "off")
    others_tables: list[Table] = [{"name": "sgd"}, {"name": "adam"}]
    optimizer, members = from_config([table, *others_tables, table]), torch.arange(4)
    params = others = random_params(4, 0)
    state, other_state = optimizer.init(params), optimizer.init(others)
    for step, grads in enumerate(gradients(4)):
        if step == STEPS - 1:
            grads["actor.log_std"][1, 2] = torch.nan
            grads["critic.0.weight"][2, 0] = torch.inf
        sent = extra_args(step, members)
        updates, other_state = optimizer.update(take_tree(grads, members), other_state, others, **sent)
        others, expected = add_updates(others, updates)
        params, largest, state = optimizer.apply(grads, state, params, **sent)
        assert torch.equal(largest.nan_to_num(-1.0), expected.nan_to_num(-1.0))
    for name, leaf in params.items():
        assert torch.equal(leaf.nan_to_num(-1.0), others[name].nan_to_num(-1.0))
    magnitudes = [leaf.abs().flatten(1).amax(1) for leaf in params.values()]
    assert torch.equal(largest.nan_to_num(-1.0), torch.stack(magnitudes).nan_to_num(-1.0))
    assert largest.isfinite().all(0).tolist()[1:3] == [False, False]
    leaves, other_leaves = ([leaf.nan_to_num(-1.0) for leaf in tensors_of(tree)] for tree in (state, other_state))
    assert all(torch.equal(leaf, other) for leaf, other in zip(leaves, other_leaves, strict=True))


def assert_alone_is_together(tables: Sequence[Table]) -> None:
    size = len(tables)
    together = train(from_config(tables), torch.arange(size), size)
    start = random_params(size, 0)
    for k, table in enumerate(tables):
        alone = train(from_config([table]), torch.tensor([k]), size)
        for name, leaf in alone.items():
            assert torch.equal(leaf[0], together[name][k]), (k, name, table)
            assert leaf.isfinite().all()
            assert not torch.equal(leaf[0], start[name][k])


def varied(name: str, size: int) -> list[Table]:
    """Make tables of one optimizer in which every number differs between members."""
    numbers = {
        key: value
        for key, value in spec(name).defaults.items()
        if isinstance(value, float) and not isinstance(value, bool)
    }
    low = {"momentum": 0.3, "weight_decay": 1e-3, "dampening": 0.1, "initial_accumulator_value": 0.1, "lr_decay": 0.1}
    low["adam_weight_decay"] = 0.1
    return [
        {"name": name, **{key: (value or low[key]) * (1 - 0.03 * k) for key, value in numbers.items()}}
        for k in range(size)
    ]


@pytest.mark.parametrize("optimizer_name", CHAINS)
def test_alone_is_together(optimizer_name: str) -> None:
    assert_alone_is_together(varied(optimizer_name, 5))


@pytest.mark.parametrize(
    "extra",
    [
        {"max_grad_norm": 0.5},
        {"max_layer_norm": 0.5, "max_grad_value": 0.1},
        {"centralize": True},
        {"reset_moments": 5},
        {"reset_step": "rollout"},
        {"reset_moments": "rollout", "reset_step": 2},
        {"lookahead_steps": 3},
        {"schedule": {"lr": {"kind": "cosine", "warmup": 0.2}, "beta1": {"kind": "linear", "end": 0.5}}},
        {"schedule": {"lr": {"kind": "exponential", "end": 1e-5}, "beta2": "constant"}},
        {"schedule": {"lr": {"kind": "step", "every": 0.3}, "eps": {"kind": "warmup"}}},
        {"schedule": {"lr": {"kind": "kl", "target": 0.01}}, "max_grad_norm": 1.0},
        {"groups": {"*.bias": {"lr": 0.5}}, "critic": {"name": "rmsprop", "lr": 0.01}},
        {"critic": {"lr": 0.3, "schedule": {"lr": "linear"}}, "max_grad_norm": 2.0},
        {"cautious": True, "reset_moments": 5},
        {"cautious": True, "critic": {"cautious": False, "lr": 0.3}, "groups": {"*.bias": {"lr": 0.5}}},
        {"normalize_and_project": 3, "critic": {"name": "rmsprop", "lr": 0.01}},
        {"kl_limit": 0.01, "kl_backtracking": False, "schedule": {"kl_limit": "linear"}, "normalize_and_project": 1},
    ],
    ids=str,
)
def test_alone_is_together_with_everything_around(extra: Table) -> None:
    assert_alone_is_together([{**table, **extra} for table in varied("amsgrad", 4)])


def test_alone_is_together_with_every_optimizer_in_one_population() -> None:
    tables = [table for name in CHAINS for table in varied(name, 2)]
    assert_alone_is_together(tables[::2] + tables[1::2])


@pytest.mark.parametrize("name", OF_POLICIES)
def test_alone_is_together_for_those_of_policies(name: str) -> None:
    critic = {"critic": {"name": "adam"}}
    assert_alone_is_together([{**table, **critic} for table in varied(name, 4)] + [varied("sgd", 1)[0]])


def test_alone_is_together_with_limited_steps() -> None:
    tables = [{**table, "kl_limit": 0.01 * (k + 1)} for k, table in enumerate(varied("adam", 4))]
    assert_alone_is_together([*tables, {"name": "lion", "kl_limit": 0.1, "reset_moments": 2}, varied("sgd", 1)[0]])


@pytest.mark.parametrize("optimizer_name", ["adam"])
def test_alone_is_together_with_two_threads(optimizer_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves of a size that PyTorch splits between threads."""
    monkeypatch.setitem(SHAPES, "actor.0.weight", (150, 300))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert_alone_is_together([{**table, "max_grad_norm": 1.0} for table in varied(optimizer_name, 3)])
    torch.set_num_threads(before)


def test_schedules_end_in_the_same_bits_at_every_place() -> None:
    """exp and cos have vector and scalar code that differ in the last bit."""
    values = torch.rand(67, dtype=torch.float64) * 3
    for function in (torch.exp, torch.cos, torch.log, lambda x: torch.pow(0.96, x)):
        together = deterministic_map(function, values)
        assert torch.equal(together, torch.cat([deterministic_map(function, value[None]) for value in values]))
        torch.testing.assert_close(together, function(values), rtol=1e-15, atol=0)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 16, 33, 100, 4096, 16385, 50_000])
def test_row_sums_have_the_same_bits_at_every_place(width: int) -> None:
    matrix = torch.randn(9, width)
    together = row_sum(matrix)
    assert torch.equal(together, torch.cat([row_sum(row[None].clone()) for row in matrix]))
    torch.testing.assert_close(together, matrix.double().sum(1).float(), rtol=1e-4, atol=1e-3)


def test_inner_product() -> None:
    first, second = random_params(3, 0), random_params(3, 1)
    expected = sum((first[name].double() * second[name].double()).flatten(1).sum(1) for name in first)
    torch.testing.assert_close(inner(first, second).double(), expected, rtol=1e-5, atol=1e-4)


MIXED: list[Table] = [
    {"name": "adam", "lr": 0.01, "max_grad_norm": 1.0},
    {"name": "sgd", "lr": 0.1, "critic": {"name": "adam"}},
    {"name": "adam", "lr": 0.02, "max_grad_norm": 2.0},
    {"name": "torch.optim:RMSprop", "lr": 0.01},
    {"name": "momentum", "lookahead_steps": 2},
    {"name": "rmsprop", "groups": {"*.bias": {"lr": 1e-3}}},
    {"name": "muon", "lr": 0.02, "reset_moments": 4},
    {"name": "soap", "precondition_frequency": 2, "critic": {"reset_moments": 5}},
    {"name": "adamw", "cautious": True, "trac": True, "trac_s_prev": 0.1, "normalize_and_project": 2},
    {"name": "torch.optim:Adam", "cautious": True, "trac": True, "trac_s_prev": 0.1, "max_grad_norm": 1.0},
]


@pytest.mark.parametrize("members", [[4, 0, 3], [7, 5, 2, 9, 6, 1, 0], [8, 3], [1, 1, 6, 2]])
def test_members_taken_in_the_middle_go_on_unchanged(members: list[int]) -> None:
    """Also through a checkpoint in between."""
    size, half, rows = len(MIXED), STEPS // 2, torch.tensor(members)
    optimizer = from_config(MIXED)
    whole = train(optimizer, torch.arange(size), size)
    params = random_params(size, 0)
    state = optimizer.init(params)
    for step, grads in enumerate(gradients(size)):
        now = torch.arange(size)
        if step >= half:
            grads, now = take_tree(grads, rows), rows
        if step == half:
            data = optimizer.dump(optimizer.take(state, rows))
            params = take_tree(params, rows)
            state = optimizer.load(data, params)
        updates, state = optimizer.update(grads, state, params, **extra_args(step, now))
        params = apply_updates(params, updates)
    for name, leaf in params.items():
        assert torch.equal(leaf, whole[name][rows])


def test_a_checkpoint_holds_plain_data(tmp_path: Any) -> None:
    optimizer, params = from_config(MIXED), random_params(len(MIXED), 0)
    grads = gradients(len(MIXED))
    _, state = optimizer.update(grads[0], optimizer.init(params), params)
    torch.save(optimizer.dump(state), tmp_path / "state.pt")
    loaded = optimizer.load(torch.load(tmp_path / "state.pt", weights_only=True), params)
    again, _ = optimizer.update({name: leaf.clone() for name, leaf in grads[1].items()}, loaded, params)
    updates, _ = optimizer.update(grads[1], state, params)
    assert all(torch.equal(updates[name], again[name]) for name in params)


def test_an_empty_population() -> None:
    optimizer, params, nobody = from_config(MIXED), random_params(len(MIXED), 0), torch.zeros(0, dtype=torch.int64)
    state = optimizer.take(optimizer.init(params), nobody)
    none = take_tree(params, nobody)
    updates, _ = optimizer.update(none, state, none)
    assert {leaf.shape[0] for leaf in updates.values()} == {0}


def test_a_failed_member_leaves_the_others_alone() -> None:
    tables = [{"name": "adam", "max_grad_norm": 1.0}] * 3
    healthy = train(from_config(tables), torch.arange(3), 3)
    optimizer, params = from_config(tables), random_params(3, 0)
    state, alive = optimizer.init(params), torch.tensor([True, False, True])
    before = take_tree(params, torch.tensor([1]))
    for grads in gradients(3):
        grads["actor.0.weight"][1] = torch.nan
        updates, state = optimizer.update(grads, state, params)
        params = apply_updates(params, updates, alive)
    for name, leaf in params.items():
        assert torch.equal(leaf[[0, 2]], healthy[name][[0, 2]])
        assert torch.equal(leaf[[1]], before[name])


def test_parameters_are_never_written_into() -> None:
    for table in [*MIXED, {"name": "adamw"}, {"name": "npg", "critic": {"name": "lion"}}]:
        optimizer, params = from_config([table]), random_params(1, 0)
        before = {name: leaf.clone() for name, leaf in params.items()}
        updates, _ = optimizer.update(
            random_params(1, 1), optimizer.init(params), params, **extra_args(0, torch.arange(1))
        )
        apply_updates(params, updates)
        assert all(torch.equal(params[name], before[name]) for name in params)


def test_gradients_that_share_memory_are_copied() -> None:
    params = {"a": torch.ones(2, 3), "b": torch.ones(2, 3), "c": torch.ones(2, 3), "d": torch.ones(2, 3)}
    shared = torch.full((2, 3), 2.0)
    grads = {"a": shared, "b": shared, "c": torch.tensor(2.0).expand(2, 3), "d": params["d"] * 2}
    owned = checked_grads({**grads, "d": params["d"]}, params)
    assert len({leaf.data_ptr() for leaf in (*owned.values(), params["d"])}) == 5
    optimizer = from_config([{"name": "sgd", "lr": 1.0}] * 2)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert all(torch.equal(leaf, torch.full((2, 3), -2.0)) for leaf in updates.values())


def test_updates_keep_what_autograd_needs() -> None:
    params = {"a": torch.ones(2, 3, requires_grad=True), "b": torch.ones(2, 3)}
    moved = apply_updates(params, {"a": torch.ones(2, 3), "b": torch.ones(2, 3)})
    assert (moved["a"].requires_grad, moved["b"].requires_grad) == (True, False)
    assert moved["a"].is_leaf


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"a": torch.ones(2, 3)}, "gradients are named ['a'], parameters ['a', 'b']"),
        ({"a": torch.ones(2, 3), "b": torch.ones(2)}, "the gradient of b is torch.float32 (2,), the parameter"),
        ({"a": torch.ones(2, 3), "b": torch.ones(2, 3).double()}, "the gradient of b is torch.float64 (2, 3)"),
    ],
)
def test_gradients_that_do_not_fit_are_refused(grads: Params, message: str) -> None:
    params = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    optimizer = from_config([{"name": "sgd"}] * 2)
    with pytest.raises(PgkitError) as error:
        optimizer.update(grads, optimizer.init(params), params)
    assert message in str(error.value)


def test_parameters_of_different_populations_are_refused() -> None:
    with pytest.raises(PgkitError, match="same leading axis"):
        from_config([{"name": "sgd"}]).init({"a": torch.ones(2, 3), "b": torch.ones(3, 3)})


def test_put_tree_is_the_inverse_of_take_tree() -> None:
    tree = {"a": [torch.arange(6.0).view(3, 2), 7], "b": (torch.arange(3),)}
    members = torch.tensor([2, 0])
    doubled = take_tree(tree, members)
    doubled["a"][0] *= 2
    merged = put_tree(tree, members, doubled)
    assert torch.equal(merged["a"][0], torch.tensor([[0.0, 2.0], [2.0, 3.0], [8.0, 10.0]]))
    assert torch.equal(merged["b"][0], tree["b"][0])
    assert merged["a"][1] == 7
