"""The natural gradient, against the Fisher matrix written out."""

import pytest
import torch
from helpers.dense_fisher import HEADS, dense_fisher, flat, kl_from, numbers_like, observations, parameters, policy_of

from pgkit.errors import PgkitError
from pgkit.optim import apply_updates, diagnostics, fisher_vector_product, make
from pgkit.optim.natural_gradient import conjugate_gradients
from pgkit.optim.reductions import inner
from pgkit.types import Params

DAMPING = 1e-3


@pytest.mark.parametrize("head", HEADS)
def test_fisher_vector_product_equals_the_dense_matrix(head: str) -> None:
    policy, obs = policy_of(head), observations(3)
    params = parameters(policy, 3)
    at = {name: leaf.clone() for name, leaf in params.items()}
    product = fisher_vector_product(lambda moved: kl_from(policy, at, obs, moved), params)
    vector = numbers_like(params)
    image = product(vector)
    for k in range(3):
        expected = dense_fisher(policy, params, obs, k) @ flat(vector, k)
        torch.testing.assert_close(flat(image, k), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_step_equals_the_dense_one(head: str) -> None:
    """-sqrt(2 max_kl / x F x) x with x = (F + damping)^-1 g, to 1e-5; each member with its single numbers."""
    policy, obs, max_kl = policy_of(head), observations(3), [1e-4, 1e-3, 1e-2]
    params = parameters(policy, 3)
    at = {name: leaf.clone() for name, leaf in params.items()}
    product = fisher_vector_product(lambda moved: kl_from(policy, at, obs, moved), params)
    grads = numbers_like(params)
    optimizer = make("npg", max_kl=max_kl, damping=DAMPING, cg_iterations=100)
    updates, state = optimizer.update(grads, optimizer.init(params), params, fisher_vector_product=product)
    for k in range(3):
        damped = dense_fisher(policy, params, obs, k)
        damped += DAMPING * torch.eye(len(damped), dtype=torch.float64)
        x = torch.linalg.solve(damped, flat(grads, k))
        step = -(2 * max_kl[k] / (x @ damped @ x)).sqrt() * x
        assert (flat(updates, k) - step).norm() <= 1e-5 * step.norm()
    torch.testing.assert_close(diagnostics(state)["expected_kl"], torch.tensor(max_kl, dtype=torch.float64))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("max_kl", [1e-4, 1e-3])
def test_measured_kl_is_max_kl(head: str, max_kl: float) -> None:
    """To within 20 % with the defaults, along a policy gradient."""
    policy, obs = policy_of(head), observations(4, 400)
    params = {name: leaf.requires_grad_() for name, leaf in parameters(policy, 4).items()}
    outputs = policy.outputs(params, obs)
    noise = torch.rand(4, 400, policy.head.noise, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    action = policy.head.sample(outputs.detach(), noise)
    advantage = obs[..., 0] * (action if policy.head.name == "categorical" else action[..., 0])
    loss = -(policy.head.log_prob(outputs, action) * advantage).mean(1)
    grads = dict(zip(params, torch.autograd.grad(loss.sum(), list(params.values())), strict=True))
    at = {name: leaf.detach().clone() for name, leaf in params.items()}
    product = fisher_vector_product(lambda moved: kl_from(policy, at, obs, moved), at)
    optimizer = make("npg", max_kl=max_kl)
    updates, _ = optimizer.update(grads, optimizer.init(at), at, fisher_vector_product=product)
    measured = kl_from(policy, at, obs, apply_updates(at, updates))
    torch.testing.assert_close(measured, torch.full_like(measured, max_kl), rtol=0.2, atol=0)


def test_conjugate_gradients_stop_after_their_iterations() -> None:
    """As many iterations as dimensions solve exactly, one is steepest descent; members differ in their number."""
    random = torch.Generator().manual_seed(0)
    root = torch.randn(2, 6, 6, dtype=torch.float64, generator=random)
    matrix = root @ root.mT + torch.eye(6, dtype=torch.float64)
    target = {"x": torch.randn(2, 6, dtype=torch.float64, generator=random)}

    def product(vector: Params) -> Params:
        return {"x": (matrix @ vector["x"].unsqueeze(-1)).squeeze(-1)}

    solution = conjugate_gradients(product, target, torch.tensor([6, 1]), max_iterations=6)
    exact = torch.linalg.solve(matrix, target["x"])
    torch.testing.assert_close(solution["x"][0], exact[0], rtol=1e-6, atol=1e-8)
    first = inner(target, target) / inner(target, product(target))
    torch.testing.assert_close(solution["x"][1], first[1] * target["x"][1])


def test_a_zero_gradient_gives_a_zero_step() -> None:
    params = {"actor.0.weight": torch.ones(2, 3)}
    optimizer = make("npg")
    zero = {"actor.0.weight": torch.zeros(2, 3)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params, fisher_vector_product=lambda v: v)
    assert torch.equal(updates["actor.0.weight"], torch.zeros(2, 3))


def test_npg_refuses_critics_and_a_missing_product() -> None:
    with pytest.raises(
        PgkitError, match=r"npg is for the policy, not for 'critic.0.weight': set optimizer.critic.name"
    ):
        make("npg").init({"actor.0.weight": torch.ones(1, 3), "critic.0.weight": torch.ones(1, 3)})
    params = {"actor.0.weight": torch.ones(1, 3)}
    with pytest.raises(PgkitError, match="npg requires 'fisher_vector_product'"):
        make("npg").update(params, make("npg").init(params), params)
