"""Hand-made episodes with exact numbers, and the constant-reward task that only truncation's bootstrap solves."""

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
    reward_to_go,
    td0,
)

NAN = float("nan")
INF = float("inf")


def strip(*numbers: float) -> Tensor:
    """One environment of one member, ``(T, 1, 1)``."""
    return torch.tensor(numbers, dtype=torch.float64).view(-1, 1, 1)


def flags(rows: str) -> EpisodeEnds:
    """One letter per row: ``-`` step, ``x`` terminated, ``c`` truncated, ``b`` both, ``.`` none (valid False)."""
    masks = [torch.tensor([row in letters for row in rows]).view(-1, 1, 1) for letters in ("xb", "cb", "-xcb")]
    return EpisodeEnds(*masks)


# Three episodes under NEXT_STEP autoreset: terminated, reset row, truncated, reset row, cut by the rollout's end.
# Bits of two keep every number exact with gamma = lam = 1/2.
ROWS = "--x.-c.--"
ENDS = flags(ROWS)
REWARD = strip(1, 2, 4, NAN, 8, 16, NAN, 32, 64)
VALUE = strip(2, 4, 8, NAN, 16, 32, NAN, 64, 128)
NEXT_VALUE = strip(4, 8, NAN, NAN, 32, 256, NAN, 128, 512)  # the end of the task has no value


def assert_strip(result: Tensor, *expected: float) -> None:
    assert result.flatten().tolist() == list(expected)


def test_td0():
    # r + next / 2 - value; terminated: r - value; truncated and last: from next_value
    assert_strip(td0(REWARD, VALUE, NEXT_VALUE, ENDS, 0.5), 1, 2, -4, 0, 8, 112, 0, 32, 192)


def test_gae():
    # delta as above; A_t = delta_t + A_{t+1} / 4 within an episode
    assert_strip(gae(REWARD, VALUE, NEXT_VALUE, ENDS, 0.5, 0.5), 1.25, 1, -4, 0, 36, 112, 0, 80, 192)


def test_reward_to_go():
    # 4; 2 + 4/2; 1 + 4/2 | 16 + 256/2; 8 + 144/2 | 64 + 512/2; 32 + 320/2
    assert_strip(reward_to_go(REWARD, NEXT_VALUE, ENDS, 0.5), 3, 4, 4, 0, 80, 144, 0, 192, 320)


def test_reward_to_go_with_nothing_behind_the_cuts():
    zero = torch.zeros_like(REWARD)
    assert_strip(reward_to_go(REWARD, zero, ENDS, 0.5), 3, 4, 4, 0, 16, 16, 0, 64, 64)


def test_full_return():
    assert_strip(full_return(REWARD, NEXT_VALUE, ENDS, 0.5), 3, 3, 3, 0, 80, 80, 0, 192, 192)


def test_discount_from_start():
    assert_strip(discount_from_start(ENDS, 0.5), 1, 0.5, 0.25, 0, 1, 0.5, 0, 1, 0.5)


def test_n_step():
    # two steps: 1 + 2/2 + 8/4; 2 + 4/2; 4 | 8 + 16/2 + 256/4; 16 + 256/2 | the same as to the end
    assert_strip(n_step(REWARD, NEXT_VALUE, ENDS, 0.5, 2), 4, 4, 4, 0, 80, 144, 0, 192, 320)
    # one step: 1 + 4/2; 2 + 8/2; 4 | 8 + 32/2; 16 + 256/2 | 32 + 128/2; 64 + 512/2
    assert_strip(n_step(REWARD, NEXT_VALUE, ENDS, 0.5, 1), 3, 6, 4, 0, 24, 144, 0, 96, 320)


def test_gamma_one_counts_plainly():
    ends, zero = flags("--x"), strip(0, 0, 0)
    assert_strip(reward_to_go(strip(1, 2, 3), zero, ends, 1.0), 6, 5, 3)
    assert_strip(full_return(strip(1, 2, 3), zero, ends, 1.0), 6, 6, 6)
    assert_strip(discount_from_start(ends, 1.0), 1, 1, 1)


def test_same_step_autoreset_has_no_reset_rows():
    ends = flags("-x-c-")
    reward, value, following = strip(1, 2, 4, 8, 16), strip(2, 4, 8, 16, 32), strip(4, NAN, 16, 64, 128)
    assert_strip(reward_to_go(reward, following, ends, 0.5), 2, 2, 24, 40, 80)
    assert_strip(gae(reward, value, following, ends, 0.5, 0.5), 0.5, -2, 10, 24, 48)
    assert_strip(full_return(reward, following, ends, 0.5), 2, 2, 24, 24, 80)


def test_termination_wins_over_a_time_limit_at_the_same_step():
    ends = flags("-b")
    assert_strip(reward_to_go(strip(1, 2), strip(8, 64), ends, 0.5), 2, 2)
    assert_strip(td0(strip(1, 2), strip(0, 0), strip(8, 64), ends, 0.5), 5, 2)


def test_one_step():
    for rows, expected in {"-": 5, "x": 1, "c": 5, "b": 1, ".": 0}.items():
        assert_strip(reward_to_go(strip(1), strip(8), flags(rows), 0.5), expected)
        assert_strip(gae(strip(1), strip(0), strip(8), flags(rows), 0.5, 0.9), expected)
        assert_strip(n_step(strip(1), strip(8), flags(rows), 0.5, 3), expected)
        assert_strip(full_return(strip(1), strip(8), flags(rows), 0.5), expected)


def test_an_episode_that_starts_late_counts_from_there():
    ends = flags("..-x..")
    assert_strip(full_return(strip(NAN, NAN, 1, 2, NAN, NAN), strip(*[0] * 6), ends, 0.5), 0, 0, 2, 2, 0, 0)
    assert_strip(discount_from_start(ends, 0.5), 0, 0, 1, 0.5, 0, 0)


def test_a_step_before_rows_that_are_none_bootstraps():
    """An environment that stops in the middle of an episode: the value stands for the rest, as at the rollout's end."""
    ends = flags("--.-")
    reward, following = strip(1, 2, NAN, 4), strip(4, 8, NAN, 16)
    assert_strip(reward_to_go(reward, following, ends, 0.5), 4, 6, 0, 12)
    assert_strip(n_step(reward, following, ends, 0.5, 9), 4, 6, 0, 12)
    assert_strip(gae(reward, strip(0, 4, 0, 0), following, ends, 0.5, 1.0), 4, 2, 0, 12)


@pytest.mark.parametrize("worthless", [NAN, INF, -INF])
def test_what_is_not_valid_and_the_value_of_the_end_may_be_anything(worthless: float):
    ends = flags("-x.-c")
    reward, value = strip(1, 2, worthless, 4, 8), strip(0, 0, worthless, 0, 0)
    following = strip(0, worthless, worthless, 0, 16)
    assert_strip(gae(reward, value, following, ends, 0.5, 1.0), 2, 2, 0, 12, 16)
    assert_strip(reward_to_go(reward, following, ends, 0.5), 2, 2, 0, 12, 16)
    assert_strip(n_step(reward, following, ends, 0.5, 5), 2, 2, 0, 12, 16)
    assert_strip(mean_baseline(reward, ends.valid), 1, 2, 0, 4, 8)


def test_members_have_their_own_gamma_and_lam():
    ends = EpisodeEnds(*(mask.expand(-1, 2, 1) for mask in flags("--x")))
    reward, zero = strip(1, 2, 4).expand(-1, 2, 1), torch.zeros(3, 2, 1, dtype=torch.float64)
    gamma, lam = torch.tensor([0.5, 1.0]), torch.tensor([1.0, 0.5])
    assert reward_to_go(reward, zero, ends, gamma)[:, :, 0].T.tolist() == [[3, 4, 4], [7, 6, 4]]
    assert gae(reward, zero, zero, ends, gamma, lam)[:, :, 0].T.tolist() == [[3, 4, 4], [3, 4, 4]]
    assert discount_from_start(ends, gamma)[:, :, 0].T.tolist() == [[1, 0.5, 0.25], [1, 1, 1]]


def test_baselines_average_over_the_environments_that_run():
    valid = torch.tensor([[True, True, True], [True, False, True], [False, False, True]]).view(3, 1, 3)
    returns = torch.tensor([[1.0, 2.0, 6.0], [4.0, NAN, 8.0], [NAN, NAN, 5.0]]).view(3, 1, 3)
    assert mean_baseline(returns, valid)[:, 0].tolist() == [[3, 3, 3], [6, 0, 6], [0, 0, 5]]
    assert leave_one_out_baseline(returns, valid)[:, 0].tolist() == [[4, 3.5, 1.5], [8, 0, 4], [0, 0, 0]]


def test_baselines_of_a_lone_environment():
    returns, valid = torch.tensor([[[3.0]]]), torch.ones(1, 1, 1, dtype=torch.bool)
    assert mean_baseline(returns, valid).item() == 3
    assert leave_one_out_baseline(returns, valid).item() == 0


Target = Callable[[Tensor, Tensor, Tensor, EpisodeEnds, float], Tensor]
TARGETS: dict[str, Target] = {
    "gae(0.95)": lambda r, v, nv, ends, gamma: gae(r, v, nv, ends, gamma, 0.95) + v,
    "gae(1)": lambda r, v, nv, ends, gamma: gae(r, v, nv, ends, gamma, 1.0) + v,
    "td0": lambda r, v, nv, ends, gamma: td0(r, v, nv, ends, gamma) + v,
    "n_step": lambda r, v, nv, ends, gamma: n_step(r, nv, ends, gamma, 3),
    "reward_to_go": lambda r, v, nv, ends, gamma: reward_to_go(r, nv, ends, gamma),
}


def learnt_value(target: Target, rows: str, gamma: float) -> float:
    """The fixed point of a critic with one state, reward 1 at each step, trained on the mean of its targets."""
    ends, value = flags(rows), 0.0
    reward = torch.where(ends.valid, 1.0, NAN).double()
    for _ in range(600):
        values = torch.full_like(reward, value)
        value = target(reward, values, values, ends, gamma)[ends.valid].mean().item()
    return value


@pytest.mark.parametrize("rows", ["----c.----c.---", "----c----c---", "c.c.c", "ccc"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_constant_reward_is_worth_its_geometric_series_though_time_is_limited(name: str, rows: str):
    gamma = 0.95
    assert learnt_value(TARGETS[name], rows, gamma) == pytest.approx(1 / (1 - gamma), rel=1e-9)
    mistaken = learnt_value(TARGETS[name], rows.replace("c", "x"), gamma)
    assert mistaken < 0.75 / (1 - gamma)  # this is what taking the time limit for the end makes of it
