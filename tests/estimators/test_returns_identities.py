"""What must hold between estimators before any number is looked at, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pgkit.returns import (
    EpisodeEnds,
    discount_from_start,
    full_return,
    gae,
    leave_one_out_baseline,
    mean_baseline,
    n_step,
    normalize_advantage,
    reward_to_go,
    td0,
)

T, P, N = 13, 5, 3
Example = tuple[Tensor, Tensor, Tensor, EpisodeEnds]  # reward, value, next_value, ends


def strips(size: tuple[int, int, int] = (T, P, N), seed: int = 0) -> Example:
    """Rewards, values that fit together, and ends of all kinds with a reset row (valid False) after each."""
    generator = torch.Generator().manual_seed(seed)
    steps, *shape = size
    over = torch.zeros(shape, dtype=torch.bool)
    rows = []
    for _ in range(steps):
        valid = ~over
        draw = torch.rand(shape, generator=generator)
        terminated, truncated = valid & (draw < 0.15), valid & (draw > 0.9)
        over = terminated | truncated
        rows.append((terminated, truncated, valid))
    ends = EpisodeEnds(*(torch.stack(column) for column in zip(*rows, strict=True)))
    value = torch.randn(steps + 1, *shape, generator=generator)
    return torch.randn(size, generator=generator), value[:-1], value[1:], ends


@pytest.fixture
def example() -> Example:
    reward, value, next_value, ends = strips()
    for mask in (ends.terminated, ends.truncated, ~ends.valid):
        assert mask.sum() > 5
    return reward.double(), value.double(), next_value.double(), ends


GAMMA = torch.tensor([0.0, 0.5, 0.9, 0.99, 1.0])
LAM = torch.tensor([0.95, 0.0, 0.3, 1.0, 0.7])


def test_gae_of_zero_is_the_td_error(example: Example):
    assert torch.equal(gae(*example, GAMMA, 0.0), td0(*example, GAMMA))


def test_gae_of_one_is_reward_to_go_minus_value(example: Example):
    reward, value, next_value, ends = example
    to_go = reward_to_go(reward, next_value, ends, GAMMA)
    torch.testing.assert_close(gae(*example, GAMMA, 1.0), torch.where(ends.valid, to_go - value, 0.0))


@pytest.mark.parametrize("n", [T, T + 1, 1000])
def test_n_step_of_the_whole_rollout_is_reward_to_go(example: Example, n: int):
    reward, _, next_value, ends = example
    torch.testing.assert_close(
        n_step(reward, next_value, ends, GAMMA, n), reward_to_go(reward, next_value, ends, GAMMA)
    )
    assert not torch.allclose(n_step(reward, next_value, ends, 0.9, 2), reward_to_go(reward, next_value, ends, 0.9))


def test_one_step_minus_value_is_the_td_error(example: Example):
    reward, value, next_value, ends = example
    one = torch.where(ends.valid, n_step(reward, next_value, ends, GAMMA, 1) - value, 0.0)
    assert torch.equal(one, td0(*example, GAMMA))


@pytest.mark.parametrize("lam", [0.3, 0.9])
def test_gae_is_the_exponential_average_of_n_step_returns(lam: float):
    """``A = (1 - lam) sum_n lam^{n-1} (G^n - V)``: the definition in eq. 16 of the paper, on one endless episode."""
    reward, value, next_value, ends = strips((6, 1, 1))
    never = torch.zeros_like(ends.valid)
    ends = EpisodeEnds(never, never, ~never)
    returns = [n_step(reward, next_value, ends, 0.9, n)[0] for n in range(1, 7)]
    average = sum((1 - lam) * lam ** (n - 1) * returns[n - 1] for n in range(1, 6)) + lam**5 * returns[5]
    torch.testing.assert_close(gae(reward, value, next_value, ends, 0.9, lam)[0], average - value[0])


def test_full_return_is_that_of_the_first_step(example: Example):
    reward, _, next_value, ends = example
    full, to_go = full_return(reward, next_value, ends, GAMMA), reward_to_go(reward, next_value, ends, GAMMA)
    first = ends.valid.clone()
    first[1:] &= ~ends.valid[:-1]
    assert torch.equal(full[first], to_go[first])
    same = ends.valid[1:] & ends.valid[:-1]
    assert torch.equal(full[1:][same], full[:-1][same])


def test_rewards_weighed_from_the_start_add_up_to_the_full_return(example: Example):
    reward, _, next_value, ends = example
    ends = EpisodeEnds(*(mask.clone() for mask in ends))
    ends.terminated[ends.truncated] = True
    factor = discount_from_start(ends, GAMMA, torch.float64)
    full = full_return(reward, torch.zeros_like(next_value), ends, GAMMA)
    for p in range(P):
        for n in range(N):
            stop = int((~ends.valid[:, p, n]).nonzero()[0]) if (~ends.valid[:, p, n]).any() else T
            assert (factor * reward)[:stop, p, n].sum().item() == pytest.approx(full[0, p, n].item(), abs=1e-12)


@pytest.mark.parametrize("function", [gae, reward_to_go])
def test_numbers_of_two_kinds_give_the_larger(example: Example, function: Callable[..., Tensor]):
    reward, *values, ends = example
    given, settings = (values, [GAMMA, LAM]) if function is gae else (values[1:], [GAMMA])
    mixed = function(reward.float(), *given, ends, *settings)
    assert mixed.dtype == torch.float64
    torch.testing.assert_close(mixed, function(reward, *given, ends, *settings), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_numbers_are_for_torch(example: Example, dtype: torch.dtype):
    *numbers, ends = example
    advantage = gae(*(number.to(dtype) for number in numbers), ends, GAMMA, LAM)
    assert advantage.dtype == dtype
    torch.testing.assert_close(advantage.double(), gae(*example, GAMMA, LAM), rtol=0.1, atol=0.1)


def test_gamma_zero_leaves_the_reward(example: Example):
    reward, _, next_value, ends = example
    assert torch.equal(reward_to_go(reward, next_value, ends, 0.0), torch.where(ends.valid, reward, 0.0))


def test_baselines_of_equal_returns_are_these_returns():
    returns, valid = torch.full((2, 1, 3), 7.0), torch.ones(2, 1, 3, dtype=torch.bool)
    assert torch.equal(mean_baseline(returns, valid), returns)
    assert torch.equal(leave_one_out_baseline(returns, valid), returns)


def test_leave_one_out_is_the_mean_rescaled(example: Example):
    """``G - leave_one_out = (G - mean) n / (n - 1)`` where n > 1 environments run."""
    returns, valid = example[0], example[3].valid
    running = valid.sum(2, keepdim=True)
    where = valid & (running > 1)
    left = returns - leave_one_out_baseline(returns, valid)
    right = (returns - mean_baseline(returns, valid)) * running / (running - 1)
    torch.testing.assert_close(left[where], right[where])


def test_normalised_advantages_have_mean_zero_and_deviation_one():
    generator = torch.Generator().manual_seed(3)
    advantage = torch.randn(4, 50, dtype=torch.float64, generator=generator) * 3 + 5
    valid = torch.rand(4, 50, generator=generator) < 0.7
    normal = normalize_advantage(advantage, valid)
    for row, mask, given in zip(normal, valid, advantage, strict=True):
        assert row[mask].mean().item() == pytest.approx(0, abs=1e-12)
        assert row[mask].std(correction=0).item() == pytest.approx(1, rel=1e-6)
        assert torch.equal(row[mask].argsort(), given[mask].argsort())
        assert not row[~mask].any()
    constant = normalize_advantage(torch.full((1, 8), 3.0), torch.ones(1, 8, dtype=torch.bool))
    assert torch.equal(constant, torch.zeros(1, 8))  # no division by zero


Function = Callable[[Tensor, Tensor, Tensor, EpisodeEnds, float | Tensor, float | Tensor], Tensor]


def normalized(reward: Tensor, valid: Tensor) -> Tensor:
    flat, mask = (x.transpose(0, 1).flatten(1) for x in (reward, valid))
    return normalize_advantage(flat, mask).view(reward.shape[1], reward.shape[0], -1).transpose(0, 1)


FUNCTIONS: dict[str, Function] = {
    "gae": lambda r, v, nv, ends, gamma, lam: gae(r, v, nv, ends, gamma, lam),
    "td0": lambda r, v, nv, ends, gamma, lam: td0(r, v, nv, ends, gamma),
    "reward_to_go": lambda r, v, nv, ends, gamma, lam: reward_to_go(r, nv, ends, gamma),
    "full_return": lambda r, v, nv, ends, gamma, lam: full_return(r, nv, ends, gamma),
    "n_step": lambda r, v, nv, ends, gamma, lam: n_step(r, nv, ends, gamma, 3),
    "discount_from_start": lambda r, v, nv, ends, gamma, lam: discount_from_start(ends, gamma),
    "mean_baseline": lambda r, v, nv, ends, gamma, lam: mean_baseline(r, ends.valid),
    "leave_one_out_baseline": lambda r, v, nv, ends, gamma, lam: leave_one_out_baseline(r, ends.valid),
    "normalize_advantage": lambda r, v, nv, ends, gamma, lam: normalized(r, ends.valid),
}


@pytest.mark.parametrize("size", [(1, 2, 1), (7, 5, 1), (33, 9, 8), (130, 17, 3)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_member_gets_the_bits_that_it_gets_alone_with_floats(name: str, size: tuple[int, int, int]):
    reward, value, next_value, ends = strips(size)
    value = value.transpose(0, 1).contiguous().transpose(0, 1)  # as critics give it: another order in memory
    gamma, lam = (torch.rand(size[1], generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    together = FUNCTIONS[name](reward, value, next_value, ends, gamma, lam)
    for k in range(size[1]):
        single = [x[:, k : k + 1] for x in (reward, value, next_value)]
        alone_ends = EpisodeEnds(*(mask[:, k : k + 1] for mask in ends))
        alone = FUNCTIONS[name](*single, alone_ends, float(gamma[k]), float(lam[k]))
        assert torch.equal(together[:, k], alone[:, 0])
        copied = FUNCTIONS[name](*(x.clone() for x in single), alone_ends, gamma[k : k + 1].double(), lam[k : k + 1])
        assert torch.equal(together[:, k], copied[:, 0])
    assert together.dtype == torch.float32


@pytest.mark.parametrize(
    "name", [name for name in FUNCTIONS if name != "normalize_advantage"]
)  # which sums over time: order matters
def test_padding_with_idle_rows_changes_no_bit(name: str):
    reward, value, next_value, ends = strips()
    ends.terminated[-1] |= ends.valid[-1] & ~ends.truncated[-1]
    padded = [torch.cat([x, x.new_zeros(19, P, N)]) for x in (reward, value, next_value)]
    padded_ends = EpisodeEnds(*(torch.cat([mask, mask.new_zeros(19, P, N)]) for mask in ends))
    result = FUNCTIONS[name](*padded, padded_ends, GAMMA, LAM)
    assert torch.equal(result[:T], FUNCTIONS[name](reward, value, next_value, ends, GAMMA, LAM))
    assert not result[T:].any()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_given_is_written_into(name: str):
    reward, value, next_value, ends = strips()
    before = [x.clone() for x in (reward, value, next_value, *ends)]
    FUNCTIONS[name](reward, value, next_value, ends, GAMMA, LAM)
    for x, copy in zip((reward, value, next_value, *ends), before, strict=True):
        assert torch.equal(x, copy)


def with_wrong(index: int, tensor: Callable[[Tensor], Tensor]) -> list[Tensor]:
    reward, value, next_value, ends = strips()
    tensors = [reward, value, next_value, *ends]
    tensors[index] = tensor(tensors[index])
    return tensors


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize(
    "change", [lambda x: x[..., 0], lambda x: x[:, :1], lambda x: x[:-1], lambda x: x[..., None], lambda x: x[0]]
)
def test_another_shape_is_refused(index: int, change: Callable[[Tensor], Tensor]):
    reward, value, next_value, *masks = with_wrong(index, change)
    ends, calls = EpisodeEnds(*masks), []
    calls.append(lambda: gae(reward, value, next_value, ends, 0.9, 0.9))
    calls.append(lambda: td0(reward, value, next_value, ends, 0.9))
    if index != 1:
        calls.append(lambda: reward_to_go(reward, next_value, ends, 0.9))
        calls.append(lambda: full_return(reward, next_value, ends, 0.9))
        calls.append(lambda: n_step(reward, next_value, ends, 0.9, 2))
    if index > 2:
        calls.append(lambda: discount_from_start(ends, 0.9))
    if index in (0, 5):
        calls.append(lambda: mean_baseline(reward, ends.valid))
        calls.append(lambda: leave_one_out_baseline(reward, ends.valid))
    for call in calls:
        with pytest.raises(ValueError, match=r"^expected (two )?tensors of one shape \(T, P, N\).*got .*$") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_refusal_names_every_shape():
    reward, value, next_value, ends = strips()
    message = r"got reward \(13, 5\), value \(13, 5, 3\), next_value \(13, 5, 3\), terminated \(13, 5, 3\), trunc"
    with pytest.raises(ValueError, match=message):
        gae(reward[..., 0], value, next_value, ends, 0.9, 0.9)


def test_ranks_that_agree_but_are_not_three_and_empty_rollouts_are_refused():
    reward, value, next_value, ends = strips()
    for cut in (lambda x: x[:, 0], lambda x: x[:0], lambda x: x[..., None]):
        with pytest.raises(ValueError, match=r"one shape \(T, P, N\) with T >= 1"):
            gae(cut(reward), cut(value), cut(next_value), EpisodeEnds(*map(cut, ends)), 0.9, 0.9)
    with pytest.raises(ValueError, match=r"two tensors of one shape \(P, B\), got \(13, 5, 3\) and \(13, 5, 3\)"):
        normalize_advantage(reward, ends.valid)
    with pytest.raises(ValueError, match=r"two tensors of one shape \(P, B\), got \(13, 5\) and \(5,\)"):
        normalize_advantage(reward[..., 0], ends.valid[0, :, 0])


@pytest.mark.parametrize("field", EpisodeEnds._fields)
def test_masks_that_are_not_bool_are_refused(field: str):
    reward, value, next_value, ends = strips()  # ~ of the integer 1 is -2: it would pass for true
    ends = ends._replace(**{field: getattr(ends, field).long()})
    with pytest.raises(ValueError, match=rf"{field} must be bool, got torch.int64"):
        gae(reward, value, next_value, ends, 0.9, 0.9)


@pytest.mark.parametrize("shape", [(3,), (1,), (5, 1), (13, 5, 3)])
def test_gamma_and_lam_are_numbers_or_one_per_member(shape: tuple[int, ...]):
    reward, value, next_value, ends = strips()
    for name, call in {
        "gamma": lambda x: gae(reward, value, next_value, ends, x, 0.9),
        "lam": lambda x: gae(reward, value, next_value, ends, 0.9, x),
    }.items():
        with pytest.raises(ValueError, match=rf"{name} must be a number or have shape \(P,\) = \(5,\), got \("):
            call(torch.full(shape, 0.9))
        assert torch.equal(call(torch.tensor(0.9)), call(0.9))


@pytest.mark.parametrize("n", [0, -1])
def test_n_is_at_least_one(n: int):
    reward, _, next_value, ends = strips()
    with pytest.raises(ValueError, match=f"n must be at least 1, got {n}"):
        n_step(reward, next_value, ends, 0.9, n)
