"""Graphs repeat what was captured with other numbers, to the last bit; what they cannot repeat is refused."""

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
"""A function for each operation."""

OTHERS: dict[str, Function] = {
    "in place": lambda x, y, flag: x.clone().mul_(y).add_(1).clamp_(max=3.0).copy_(y),
    "constants": lambda x, y, flag: torch.zeros_like(x).add_(x) + torch.tensor([2.0], dtype=x.dtype).add_(y[:1]),
    "filled": lambda x, y, flag: x.clone().fill_(4.0).add_(y),
    "joined": lambda x, y, flag: torch.cat([torch.stack([x, y]), x[None]]),
    "views": lambda x, y, flag: torch.stack([x, y]).view(2, -1)[1:].squeeze(0) + y[:1],
    "integers": lambda x, y, flag: flag.to(torch.int64) * 3 + 2,
    "compiled functions": lambda x, y, flag: deterministic_map(torch.sqrt, x.abs()) + total(y.abs()[:, None]),
}


def random_inputs(count: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(count, dtype=dtype), torch.randn(count, dtype=dtype), torch.rand(count) < 0.5


def flags() -> tuple[Tensor, Tensor, Tensor]:
    """Flags that say: ok, no snapshot due, keep going."""
    return torch.ones(1, dtype=torch.bool), torch.zeros(1, dtype=torch.bool), torch.ones(1, dtype=torch.bool)


def repeat(graph: Graph) -> None:
    nothing = MemberBuffers([], [], [], [])
    status = graph.run(1, 1, nothing, nothing)
    assert status.updates.tolist() == [1]
    assert status.ok.all()


@pytest.mark.parametrize("count", [1, 8, 21])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", [*FUNCTIONS, *OTHERS])
def test_a_graph_does_the_same_with_other_numbers(name: str, dtype: torch.dtype, count: int) -> None:
    torch.manual_seed(count)
    function = {**FUNCTIONS, **OTHERS}[name]
    inputs = random_inputs(count, dtype)
    with Capture() as capture:
        result = function(*inputs)
    first = result.clone()
    assert torch.equal(first, function(*inputs))
    graph = Graph(capture.instructions, *flags())
    changed = False
    for _ in range(20):
        for tensor, new in zip(inputs, random_inputs(count, dtype), strict=True):
            tensor.copy_(new)
        repeat(graph)
        assert torch.equal(result, function(*inputs))
        changed = changed or not torch.equal(result, first)
    assert changed


def test_there_is_a_test_for_each_operation() -> None:
    assert FUNCTIONS.keys() == OPERATIONS.keys()


def test_nan_is_treated_as_by_pytorch() -> None:
    x = torch.tensor([float("nan"), 1.0])
    y = torch.tensor([0.0, float("nan")])
    flag = torch.tensor([True, False])
    for name, function in FUNCTIONS.items():
        with Capture() as capture:
            result = function(x, y, flag)
        expected = result.clone()
        result.fill_(0)
        repeat(Graph(capture.instructions, *flags()))
        assert torch.equal(result.nan_to_num(9.0), expected.nan_to_num(9.0)), name


REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "sums, which PyTorch adds in its own order": lambda x: x.sum(),
    "functions that are not correctly rounded": lambda x: x.exp(),
    "the square root, whose rounding PyTorch does not promise": lambda x: x.sqrt(),
    "numbers that Python reads": lambda x: x[0].item(),
    "branches": lambda x: 1 if x.max() > 0 else 0,
    "sizes that depend on numbers": lambda x: (x > 0).nonzero(),
    "rows chosen by an index": lambda x: x[torch.tensor([1])],
    "tensors that are not contiguous": lambda x: x.view(2, 3).T + 1,
    "broadcasting along one axis": lambda x: x.view(2, 3) + torch.ones(3),
    "additions with a factor": lambda x: torch.add(x, x, alpha=2),
    "rounded quotients": lambda x: torch.div(x, 2, rounding_mode="floor"),
    "results in a tensor of the caller": lambda x: torch.add(x, x, out=torch.empty(6)),
    "sums of booleans": lambda x: (x > 0) + (x > 1),
    "the maximum of integers": lambda x: torch.maximum(x.to(torch.int64), x.to(torch.int64)),
    "all of several axes": lambda x: (x > 0).all(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_repeated_is_refused(name: str) -> None:
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


def test_members_are_updated_until_one_is_not_ok() -> None:
    """Each counts down: a snapshot is due at 7, the last update ends at 60, and below zero it is not ok."""
    number = torch.zeros(1)
    ok, snapshot_due, keep_going = flags()
    with Capture() as capture:
        number.copy_(number - 1)
        ok.copy_(number >= 0)
        snapshot_due.copy_(number == 7)
        keep_going.copy_(number != 60)
    graph = Graph(capture.instructions, ok, snapshot_due, keep_going)
    members = torch.tensor([100.0, 9.0, 3.0, 62.0, 5.0])
    rows = torch.tensor([1, 2, 4, 3])
    results = torch.full((5,), -5.0)
    snapshots = torch.full((5,), -5.0)
    buffers = MemberBuffers([members], [results], [rows], [number])
    status = graph.run(4, 4, buffers, MemberBuffers([snapshots], [snapshots], [rows], [number]))
    assert status.updates.tolist() == [4, 3, 4, 2]
    assert status.ok.tolist() == [True, False, True, True]
    assert results[[0, 1, 3, 4]].tolist() == [-5, 5, 60, 1]
    assert snapshots.tolist() == [-5, 7, -5, -5, -5]
    assert members.tolist() == [100, 9, 3, 62, 5]
