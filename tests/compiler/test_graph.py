"""What is captured is done again with other numbers, to the last bit; what cannot be is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.compiler.graph import Capture, Graph, MemberBuffers
from pgkit.compiler.graph_ops import OPERATIONS, NotCaptured
from pgkit.kernels.pointwise import deterministic_map
from pgkit.kernels.scan import total

Function = Callable[..., Tensor]

FUNCTIONS: dict[str, Function] = {
    "add": lambda x, y, flag: x + y + 2,
    "sub": lambda x, y, flag: x - y - 0.5,
    "rsub": lambda x, y, flag: 1 - x,
    "mul": lambda x, y, flag: x * y * 0.1,
    "div": lambda x, y, flag: x / y / 3,
    "neg": lambda x, y, flag: -x,
    "abs": lambda x, y, flag: x.abs(),
    "floor": lambda x, y, flag: (x * 10).floor(),
    "minimum": lambda x, y, flag: torch.minimum(x, y),
    "maximum": lambda x, y, flag: torch.maximum(x, y),
    "clamp": lambda x, y, flag: x.clamp(max=0.3).clamp(min=-0.2),
    "clamp_min": lambda x, y, flag: torch.clamp_min(x, 0.1),
    "clamp_max": lambda x, y, flag: torch.clamp_max(x, 0.1),
    "where": lambda x, y, flag: torch.where(flag, x, 1.0) + torch.where(flag, x, y),
    "lt": lambda x, y, flag: x < y,
    "le": lambda x, y, flag: x <= 0,
    "gt": lambda x, y, flag: x > y,
    "ge": lambda x, y, flag: x >= 0.5,
    "eq": lambda x, y, flag: x == x.clamp(max=0.0),
    "ne": lambda x, y, flag: x != x.clamp(max=0.0),
    "bitwise_and": lambda x, y, flag: (x < y) & flag,
    "bitwise_or": lambda x, y, flag: (x < y) | flag,
    "bitwise_not": lambda x, y, flag: ~flag,
    "all": lambda x, y, flag: torch.stack([x < 1, flag, x < 2]).all(0),
    "copy": lambda x, y, flag: x.double().float().clone() + flag.to(x.dtype),
}
"""One for each operation."""

OTHERS: dict[str, Function] = {
    "in place": lambda x, y, flag: x.clone().mul_(y).add_(1).clamp_(max=3.0).copy_(y),
    "constants": lambda x, y, flag: torch.zeros_like(x).add_(x) + torch.tensor([2.0], dtype=x.dtype).add_(y[:1]),
    "filled": lambda x, y, flag: x.clone().fill_(4.0).add_(y),
    "joined": lambda x, y, flag: torch.cat([torch.stack([x, y]), x[None]]),
    "views": lambda x, y, flag: torch.stack([x, y]).view(2, -1)[1:].squeeze(0) + y[:1],
    "integers": lambda x, y, flag: flag.to(torch.int64) * 3 + 2,
    "compiled functions": lambda x, y, flag: deterministic_map(torch.sqrt, x.abs()) + total(y.abs()[:, None]),
}


def drawn(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(count, dtype=dtype), torch.randn(count, dtype=dtype), torch.rand(count) < 0.5


def flags() -> tuple[Tensor, Tensor, Tensor]:
    """Always fine, nothing to be put aside, more to do."""
    return torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)


def again(program: Graph) -> None:
    nothing = MemberBuffers([], [], [], [])
    status = program.run(1, 1, nothing, nothing)
    assert status.updates.tolist() == [1]
    assert status.ok.all()


@pytest.mark.parametrize("count", [1, 8, 21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", [*FUNCTIONS, *OTHERS])
def test_a_program_does_the_same_with_other_numbers(name: str, dtype: torch.dtype, count: int) -> None:
    torch.manual_seed(count)
    function, inputs = {**FUNCTIONS, **OTHERS}[name], drawn(count, dtype)
    with Capture() as capture:
        result = function(*inputs)
    first = result.clone()
    assert torch.equal(first, function(*inputs))
    program = Graph(capture.instructions, *flags())
    changed = False
    for _ in range(20):
        for own, new in zip(inputs, drawn(count, dtype), strict=True):
            own.copy_(new)
        again(program)
        assert torch.equal(result, function(*inputs))
        changed = changed or not torch.equal(result, first)
    assert changed


def test_there_is_a_test_for_each_operation() -> None:
    assert FUNCTIONS.keys() == OPERATIONS.keys()


def test_nan_is_treated_as_by_pytorch() -> None:
    x, y, flag = torch.tensor([float("nan"), 1.0]), torch.tensor([0.0, float("nan")]), torch.tensor([True, False])
    for name, function in FUNCTIONS.items():
        with Capture() as capture:
            result = function(x, y, flag)
        expected = result.clone()
        result.fill_(0)
        again(Graph(capture.instructions, *flags()))
        assert torch.equal(result.nan_to_num(9.0), expected.nan_to_num(9.0)), name


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "sums, which PyTorch adds up in an order of its own": lambda x: x.sum(),
    "functions that need not be correctly rounded": lambda x: x.exp(),
    "the square root, which is one of them": lambda x: x.sqrt(),
    "numbers that Python sees": lambda x: x[0].item(),
    "branches": lambda x: 1 if x.max() > 0 else 0,
    "sizes that depend on numbers": lambda x: (x > 0).nonzero(),
    "rows chosen by numbers": lambda x: x[torch.tensor([1])],
    "what does not lie one behind the other": lambda x: x.view(2, 3).T + 1,
    "broadcasting along one axis": lambda x: x.view(2, 3) + torch.ones(3),
    "factors of additions": lambda x: torch.add(x, x, alpha=2),
    "rounded quotients": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "results elsewhere": lambda x: torch.add(x, x, out=torch.empty(6)),
    "sums of flags": lambda x: (x > 0) + (x > 1),
    "the larger of integers": lambda x: torch.maximum(x.to(torch.int64), x.to(torch.int64)),
    "all of several axes": lambda x: (x > 0).all(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_again_is_refused(name: str) -> None:
    with pytest.raises(NotCaptured), Capture():
        REFUSED[name](torch.arange(6.0))


def test_a_capture_that_fails_leaves_nothing_behind() -> None:
    for _ in range(2):
        with pytest.raises(NotCaptured), Capture():
            torch.ones(3).sum()
    with Capture() as capture:
        pass
    deterministic_map(torch.sqrt, torch.ones(3))
    assert capture.instructions == []


def test_members_take_turns_until_one_is_not_fine() -> None:
    """Each counts down from its own number, is put aside once at 7, is done at 60, and broken once it is below zero."""
    here, (fine, due, more) = torch.zeros(1), flags()
    with Capture() as capture:
        here.copy_(here - 1)
        fine.copy_(here >= 0)
        due.copy_(here == 7)
        more.copy_(here != 60)
    graph = Graph(capture.instructions, fine, due, more)
    members, places = torch.tensor([100.0, 9.0, 3.0, 62.0, 5.0]), torch.tensor([1, 2, 4, 3])
    results, aside = torch.full((5,), -5.0), torch.full((5,), -5.0)
    moves = MemberBuffers([members], [results], [places], [here])
    status = graph.run(4, 4, moves, MemberBuffers([aside], [aside], [places], [here]))
    assert status.updates.tolist() == [4, 3, 4, 2]
    assert status.ok.tolist() == [True, False, True, True]
    assert results[[0, 1, 3, 4]].tolist() == [-5, 5, 60, 1]
    assert aside.tolist() == [-5, 7, -5, -5, -5]
    assert members.tolist() == [100, 9, 3, 62, 5]
