"""Records in memory, and statements on single numbers."""

import torch
from llvmlite import ir

from pgkit.compiler.ir import POINTER, for_range, function
from pgkit.compiler.jit import compile_function
from pgkit.compiler.records import Layout, Struct
from pgkit.compiler.statements import Local, block, endless_loop, integer, number, when

POINT = Layout({"flag": (torch.bool, 1), "position": (torch.float32, 2), "index": (torch.int32, 1)})
LINE = Layout({"length": (torch.float64, 1), "points": (POINT, 3)})


def compiled(name, write):
    """A kernel ``(address)`` whose body is ``write(builder, address)``."""
    builder, (address,) = function(ir.Module(), name, [POINTER])
    write(builder, address)
    builder.ret_void()
    return compile_function(builder.function)


def test_python_and_compiled_code_agree_on_fields():
    def write(builder, address):
        line = Struct(builder, address, LINE)
        line.set("length", 0.25)
        with for_range(builder, 3) as k:
            point = line.item("points", k)
            index = integer(builder, k)
            point.set("index", -index)
            point.set("position", index.to(torch.float32) * 1.5, 1)
            point.set("flag", index == 1)
            # Read back as int64 and as a boolean.
            point.set("position", point.get("flag").where(number(builder, ir.FloatType(), 7.0), 8.0), 0)
            point.set("index", point.get("index") + 100)

    lines = torch.zeros(2, LINE.size, dtype=torch.uint8)
    kernel = compiled("fields", write)
    kernel(lines[1].data_ptr())
    assert not lines[0].any()
    assert LINE.view(lines, "length").tolist() == [[0.0], [0.25]]
    offset = LINE.fields["points"].offset
    points = lines[1:, offset : offset + 3 * POINT.size].view(3, POINT.size)
    assert POINT.view(points, "index").tolist() == [[100], [99], [98]]
    assert POINT.view(points, "position").tolist() == [[8.0, 0.0], [7.0, 1.5], [8.0, 3.0]]
    assert POINT.view(points, "flag").tolist() == [[False], [True], [False]]


def test_lanes_are_read_as_vectors_and_one_by_one():
    pair = Layout({"x": (torch.float32, 1), "y": (torch.float32, 2)})

    def write(builder, address):
        whole = Struct(builder, address, pair, lanes=4, width=4)
        whole.set("y", whole.get("x") * 10.0, 1)
        lane = whole.lane(2)
        lane.set("y", lane.get("x") + 0.5, 0)
        is_any = (whole.get("x") > 2.5).any_lane()
        lane.set("x", is_any.where(number(builder, ir.FloatType(), -1.0), -2.0))

    memory = torch.zeros(3, 4)
    memory[0] = torch.arange(4.0)
    compiled("lanes", write)(memory.data_ptr())
    assert memory.tolist() == [[0.0, 1.0, -1.0, 3.0], [0.0, 0.0, 2.5, 0.0], [0.0, 10.0, 20.0, 30.0]]


def test_loops_and_blocks_are_left_early():
    """Halve until below 1, counting; then count 100 more unless the count is above 5."""

    def write(builder, address):
        cell = Struct(builder, address, Layout({"number": (torch.float64, 1), "count": (torch.int64, 1)}))
        value = Local(cell.get("number"))
        count = Local(integer(builder, 0))
        with endless_loop(builder) as loop:
            loop.leave_if(value.get() < 1.0)
            with when(count.get() == 50):
                loop.leave()
            value.set(value.get() * 0.5)
            count.set(count.get() + 1)
        with block(builder) as steps:
            with when(count.get() > 5):
                steps.leave()
            count.set(count.get() + 100)
        cell.set("count", count.get())

    kernel = compiled("halving", write)
    counts = []
    for start in (0.5, 9.0, 1000.0, float("inf")):
        number_and_count = torch.tensor([start, 0.0], dtype=torch.float64)
        kernel(number_and_count.data_ptr())
        counts.append(number_and_count[1:].view(torch.int64).item())
    assert counts == [100, 104, 10, 50]
