"""pgkit's optimizers as a ``torch.optim.Optimizer``: PyTorch's numbers, and PyTorch's habits."""

import copy
import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgkit.errors import PgkitError
from pgkit.optim import apply_updates, as_torch, by_name, chain, make, matches, module_state, register, stack_modules
from pgkit.optim.torch_layout import to_leaf
from pgkit.optim.transforms import clip_by_value, scale_by_rate

STEPS = 200
TORCH: dict[str, tuple[Mapping[str, Any], Callable[..., torch.optim.Optimizer]]] = {
    "sgd": ({"lr": 0.01, "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, lr=0.01, weight_decay=0.1)),
    "momentum": ({"lr": 0.01, "dampening": 0.2}, lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, dampening=0.2)),
    "rmsprop": ({"lr": 7e-3, "eps": 1e-5}, lambda p: torch.optim.RMSprop(p, lr=7e-3, eps=1e-5)),
    "adam": ({"lr": 3e-3, "beta1": 0.8}, lambda p: torch.optim.Adam(p, lr=3e-3, betas=(0.8, 0.999))),
    "adamw": ({"lr": 3e-3, "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1)),
}


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """Matrices, vectors, a convolution and a number."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 5), nn.LayerNorm(5), nn.Linear(5, 1))
    module.register_parameter("temperature", nn.Parameter(torch.ones(())))
    return module.to(dtype)


def draw_grads(*modules: nn.Module, seed: int) -> None:
    """Give modules of one architecture the same random gradients."""
    for module in modules:
        params = list(module.parameters())
        random = torch.Generator().manual_seed(seed)
        numbers = torch.randn(sum(param.numel() for param in params), generator=random).to(params[0].dtype)
        for param, grad in zip(params, numbers.split([param.numel() for param in params]), strict=True):
            param.grad = grad.view(param.shape).clone()


def difference(first: nn.Module, second: nn.Module) -> float:
    """The largest difference between parameters, relative to the largest of them."""
    vectors = [nn.utils.parameters_to_vector(module.parameters()).detach() for module in (first, second)]
    return float((vectors[0] - vectors[1]).abs().max() / vectors[1].abs().max())


@pytest.mark.parametrize("name", TORCH)
def test_as_torch_equals_torch(name: str) -> None:
    settings, reference_class = TORCH[name]
    module, reference_module, start = network(), network(), network()
    optimizer = as_torch(module.parameters(), name, **settings)
    reference = reference_class(reference_module.parameters())
    for step in range(STEPS):
        draw_grads(module, reference_module, seed=step)
        optimizer.step()
        reference.step()
    assert difference(start, reference_module) > 0.05
    assert difference(module, reference_module) <= 1e-12


def test_parameters_without_gradient_are_skipped_as_in_torch() -> None:
    """The bias corrections of each parameter count its own steps."""
    module, reference_module = network(), network()
    optimizer = as_torch(module.parameters(), "adam", lr=0.01)
    reference = torch.optim.Adam(reference_module.parameters(), lr=0.01)
    for step in range(12):
        draw_grads(module, reference_module, seed=step)
        for index, pair in enumerate(zip(module.parameters(), reference_module.parameters(), strict=True)):
            if index == 0 or (index == 1 and step % 3) or (index == 2 and step < 5):
                for param in pair:
                    param.grad = None
        optimizer.step()
        reference.step()
    steps = [optimizer.state[param]["step"] for param in list(module.parameters())[1:]]
    assert steps == [reference.state[param]["step"] for param in list(reference_module.parameters())[1:]]
    assert min(steps) < max(steps)
    first = next(iter(module.parameters()))
    assert first not in optimizer.state
    assert torch.equal(first, next(iter(network().parameters())))
    assert difference(module, reference_module) <= 1e-12


def test_schedulers_and_groups_act_as_in_torch() -> None:
    module, reference_module = network(), network()

    def groups(module: nn.Module) -> list[dict[str, Any]]:
        weights = [named for named in module.named_parameters() if named[0].endswith("weight")]
        others = [named for named in module.named_parameters() if not named[0].endswith("weight")]
        return [{"params": weights, "weight_decay": 0.1}, {"params": others, "lr": 0.03}]

    optimizer = as_torch(groups(module), "adamw", lr=0.01, weight_decay=0.0)
    reference = torch.optim.AdamW(groups(reference_module), lr=0.01, weight_decay=0.0)
    schedulers = [torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.0, total_iters=15) for each in (optimizer, reference)]
    for step in range(20):
        draw_grads(module, reference_module, seed=step)
        optimizer.step()
        reference.step()
        for scheduler in schedulers:
            scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, 0.0]
    assert optimizer.param_groups[0]["param_names"][0] == "0.weight"
    assert difference(module, reference_module) <= 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "soap", "lr": 0.01, "precondition_frequency": 2},
        {"name": "soap", "lr": 0.01, "cautious": True},
        {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "cautious": True},
        {"name": "adam", "trac": True, "trac_s_prev": 0.1, "max_grad_norm": 1.0},
    ],
    ids=str,
)
def test_what_sees_whole_matrices_or_all_parameters_equals_pgkits_update(settings: Mapping[str, Any]) -> None:
    """To the last bit; also after the state went through a file."""
    module = network(torch.float32)
    optimizer = as_torch(module.parameters(), **settings)
    native, params = make(**settings), stack_modules([network(torch.float32)])
    state = native.init(params)
    for step in range(8):
        draw_grads(module, seed=step)
        grads = {name: to_leaf(param.grad[None]) for name, param in module.named_parameters() if param.grad is not None}
        optimizer.step()
        updates, state = native.update(grads, state, params)
        params = apply_updates(params, updates)
        if step == 3:
            other = as_torch(module.parameters(), **settings)
            other.load_state_dict(through_bytes(optimizer.state_dict()))
            optimizer = other
    moved = module_state(params, module)
    assert difference(module, network(torch.float32)) > 1e-3
    assert all(torch.equal(param, moved[name][0]) for name, param in module.named_parameters())


def through_bytes(state_dict: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("way", [through_bytes, copy.deepcopy])
def test_a_loaded_state_goes_on_bit_for_bit(way: Callable[[Any], Any]) -> None:
    """Also the double-precision numbers beside float32 parameters, and a rate of 0."""
    module = network(torch.float32)
    optimizer = as_torch(module.parameters(), "nadam", lr=0.01, lookahead_steps=4)
    for step in range(7):
        draw_grads(module, seed=step)
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    restored_module = copy.deepcopy(module)
    restored = as_torch(restored_module.named_parameters(), "nadam", lr=1.0, lookahead_steps=4)
    restored.load_state_dict(way(optimizer.state_dict()))
    assert restored.param_groups[0]["lr"] == 0.0
    for each in (optimizer, restored):
        each.param_groups[0]["lr"] = 0.02
    for step in range(7, 14):
        draw_grads(module, restored_module, seed=step)
        optimizer.step()
        restored.step()
    assert difference(module, network(torch.float32)) > 0.01
    assert all(map(torch.equal, module.parameters(), restored_module.parameters()))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_go_on_alone(way: Callable[[Any], Any]) -> None:
    module = network()
    optimizer = as_torch(module.parameters(), "rmsprop", lr=0.01)
    draw_grads(module, seed=0)
    optimizer.step()
    copied_module, copied = way((module, optimizer))
    draw_grads(module, copied_module, seed=1)
    optimizer.step()
    assert difference(copied_module, module) > 1e-3
    copied.step()
    assert difference(copied_module, module) == 0.0


def test_gradients_stay_and_zero_grad_clears_them() -> None:
    module = network()
    optimizer = as_torch(module.parameters(), "adam", max_grad_norm=0.1)
    draw_grads(module, seed=0)
    before = [param.grad.clone() for param in module.parameters() if param.grad is not None]
    optimizer.step()
    assert all(torch.equal(param.grad, grad) for param, grad in zip(module.parameters(), before, strict=True))
    optimizer.zero_grad()
    assert all(param.grad is None for param in module.parameters())


def test_a_closure_is_called_with_gradients_on() -> None:
    module = nn.Linear(2, 1)
    optimizer = as_torch(module.parameters(), "sgd", lr=0.5)
    start = module.bias.item()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = module(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        expected = module(torch.ones(1, 2)).sum()
    assert torch.equal(optimizer.step(closure), expected)
    assert module.bias.item() == start - 0.5


def test_max_grad_norm_clips_the_joint_norm() -> None:
    module = nn.Linear(3, 2)
    optimizer = as_torch(module.parameters(), "sgd", lr=1.0, max_grad_norm=1.0)
    start = [param.detach().clone() for param in module.parameters()]
    draw_grads(module, seed=0)
    optimizer.step()
    moves = torch.cat([(param - old).flatten() for param, old in zip(module.parameters(), start, strict=True)])
    assert moves.norm().item() == pytest.approx(1.0, abs=1e-5)


def test_whole_matrices_are_seen_as_in_by_out() -> None:
    """``centralize`` takes from the weights of each output their mean over inputs: rows of PyTorch's matrix."""
    module = nn.Linear(4, 3)
    start = module.weight.detach().clone()
    draw_grads(module, seed=0)
    assert module.weight.grad is not None
    as_torch(module.parameters(), "sgd", lr=1.0, centralize=True).step()
    expected = start - (module.weight.grad - module.weight.grad.mean(1, keepdim=True))
    torch.testing.assert_close(module.weight.detach(), expected)


def test_optimizers_by_name_see_the_names() -> None:
    register(
        "biased",
        lambda lr=0.1: by_name(
            {"b": (matches("*bias"), make("sgd", lr=lr)), "rest": (matches("*"), make("adam", lr=lr))}
        ),
    )
    module = nn.Linear(2, 1)
    start = [param.detach().clone() for param in module.parameters()]
    optimizer = as_torch(module.named_parameters(), "biased", lr=0.5)
    for param in module.parameters():
        param.grad = torch.full_like(param, 0.01)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    moves = [(old - param).max().item() for param, old in zip(module.parameters(), start, strict=True)]
    assert moves == pytest.approx([0.5, 0.005], rel=1e-4)


def test_names_of_parameters_are_no_keys_of_states() -> None:
    params = [(name, nn.Parameter(torch.ones(2))) for name in ("b", "param", "leaf_state", "lr", "0.weight")]
    optimizer = as_torch(params, "momentum", lr=0.5)
    for _ in range(2):
        for _, param in params:
            param.grad = torch.ones(2)
        optimizer.step()
    assert [param[0].item() for _, param in params] == pytest.approx([1 - 0.5 * (1 + 1.9)] * 5)


def test_a_group_that_is_refused_is_not_added() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = as_torch([param], "adam")
    with pytest.raises(PgkitError, match="beta1 is 2"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))], "beta1": 2.0})
    param.grad = torch.ones(2)
    optimizer.step()
    assert param[0].item() < 1.0
    with pytest.raises(PgkitError, match="two parameters of a group have the same name"):
        as_torch([("weight", param), ("weight", nn.Parameter(torch.ones(2)))], "adam")


def refused(*words: Any, **settings: Any) -> str:
    with pytest.raises(PgkitError) as error:
        as_torch([nn.Parameter(torch.ones(2, 3))], *words, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_a_plain_loop_cannot_give_is_refused() -> None:
    assert "'npg' with these settings needs fisher_vector_product, which" in refused("npg")
    assert "needs fisher_vector_product, trial" in refused("trpo")
    assert "needs fisher_vector_product, trial" in refused("adam", kl_limit=0.01)
    assert "needs rollout_start" in refused("adam", reset_step="rollout")
    assert "needs rollout_start" in refused("adam_rel")
    for name in ("schedule_free_sgd", "schedule_free_adamw"):
        assert "such as schedulefree.AdamWScheduleFree" in refused(name)
    assert "take torch.optim.Muon for hidden matrices" in refused("muon")
    assert "take torch.optim.Muon for hidden matrices" in refused("muon", trac=True)
    assert "normalize_and_project is for policies of pgkit" in refused("adam", normalize_and_project=1)
    assert "'adam' has a schedule" in refused("adam", schedule={"lr": "linear"})
    assert "use torch.optim.lr_scheduler" in refused("adam", schedule={"lr": "linear"})
    assert "if it is PyTorch's, use it as it is" in refused("torch.optim:Adam", lr=0.1)
    assert "unknown key 'learning_rate'" in refused("adam", learning_rate=0.1)
    assert "unknown optimizer 'adm' (did you mean 'adam'?)" in refused("adm")
    assert "lr has 2 values for 1 members" in refused("adam", lr=[0.1, 0.2])
    with pytest.raises(PgkitError, match="floating-point parameters, got torch"):
        as_torch([nn.Parameter(torch.ones(2, dtype=torch.complex64))], "adam")


def test_a_setting_that_cannot_change_is_not_ignored() -> None:
    register("doubled", lambda lr=0.1, limit=1.0: chain(clip_by_value(limit), scale_by_rate(2 * lr)))
    for name, key in (("sgd", "weight_decay"), ("rmsprop", "centered"), ("doubled", "lr"), ("doubled", "limit")):
        param = nn.Parameter(torch.ones(2))
        optimizer = as_torch([param], name)
        param.grad = torch.ones(2)
        optimizer.step()
        optimizer.param_groups[0][key] = 0.5
        with pytest.raises(PgkitError, match=f"{key} of '{name}' was .* when it was made and is 0.5 now; what may"):
            optimizer.step()


def test_states_of_other_optimizers_are_refused() -> None:
    module = network()
    draw_grads(module, seed=0)
    optimizer = as_torch(module.parameters(), "adam")
    for other in (torch.optim.Adam(module.parameters()), as_torch(module.parameters(), "sgd")):
        other.step()
        with pytest.raises(PgkitError, match="the state_dict is not of 'adam' with the same settings"):
            optimizer.load_state_dict(other.state_dict())
    assert not optimizer.state


def test_sparse_gradients_are_refused() -> None:
    module = nn.Embedding(4, 2, sparse=True)
    module(torch.tensor([1])).sum().backward()
    with pytest.raises(PgkitError, match="the gradient of parameter weight is sparse"):
        as_torch(module.named_parameters(), "adam").step()


def test_a_group_may_be_empty() -> None:
    param = nn.Parameter(torch.ones(2))
    optimizer = as_torch([{"params": []}, {"params": [param]}], "sgd", lr=0.5)
    param.grad = torch.ones(2)
    optimizer.step()
    assert param.tolist() == [0.5, 0.5]
