"""A loop in a captured graph does what Python's loop does, with code for one round."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pgkit.compiler.control_flow import repeat
from pgkit.compiler.graph import Capture, Graph, GraphStatus, MemberBuffers


def body(carried: Any) -> tuple[Any, dict[str, Tensor]]:
    """Adds up 1, 2, 3, ... until the sum is above 20, and halves what is in a list."""
    total = carried["total"] + carried["number"]
    return {
        "total": torch.where(carried["over"], carried["total"], total),
        "number": carried["number"] + 1.0,
        "over": carried["over"] | (total > 20.0),
        "list": [carried["list"][0] / 2, carried["list"][0]],
    }, {"rounds": torch.where(carried["over"], 0.0, torch.ones_like(total))}


def start(first: Tensor) -> dict[str, Any]:
    return {"total": first, "number": torch.ones(1), "over": torch.zeros(1, dtype=torch.bool), "list": [first, first]}


@pytest.mark.parametrize("until", [None, "over"])
@pytest.mark.parametrize("count", [1, 4, 10])
def test_a_captured_loop_is_pythons(count: int, until: str | None) -> None:
    first = torch.zeros(1)
    results = [torch.zeros(1) for _ in range(5)]
    with Capture() as capture:
        end, sums = repeat(count, body, start(first), until)
        for result, tensor in zip(results, [end["total"], *end["list"], sums["rounds"], first], strict=True):
            result.copy_(tensor)
    flags = [torch.ones(1, dtype=torch.bool) for _ in range(3)]
    graph = Graph(capture.instructions, *flags)
    for number in (3.0, 15.0, 30.0):
        first.fill_(number)
        nothing = MemberBuffers([], [], [], [])
        status: GraphStatus = graph.run(1, 1, nothing, nothing)
        assert status.ok.all()
        end, sums = repeat(count, body, start(torch.tensor([number])))
        expected = [end["total"], end["list"][0], end["list"][1], sums["rounds"], torch.tensor([number])]
        left_out = 2 if until else 0  # what is carried by rounds that change nothing else stays as it was
        for k, (result, tensor) in enumerate(zip(results, expected, strict=True)):
            if not (left_out and k in (1, 2)):
                assert torch.equal(result, tensor), (k, number)


def test_the_code_does_not_grow_with_the_rounds() -> None:
    lengths = []
    for count in (2, 50):
        with Capture() as capture:
            repeat(count, body, start(torch.zeros(1)))
        lengths.append(len(capture.instructions))
    assert lengths[0] == lengths[1]


def test_what_is_passed_in_is_not_written_into() -> None:
    first = torch.tensor([5.0])
    with Capture():
        repeat(3, body, start(first))
    assert first.item() == 5.0
