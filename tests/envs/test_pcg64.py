"""PCG64 draws NumPy's numbers, bit for bit, on tensors and compiled."""

import numpy as np
import pytest
import torch

from pgkit.compiler.elementwise import compile_elementwise
from pgkit.envs import pcg64
from pgkit.envs.pcg64 import EMPTY, PCG64

SEEDS = [0, 1, 5, 2**31, 2**32 - 1, 2**40, 2**63 + 11, 2**64 - 1, *range(100, 121)]  # 29: vectors of 8, and some beyond
INT = (torch.int64, 1)
FLOAT = (torch.float64, 1)


def compiled(function, outputs, columns=4):
    """``function(generator, ...) -> (generator, ...)`` as a function of int64 tensors that is compiled."""
    results = [*[INT] * 4, *outputs]
    kernel = compile_elementwise(lambda *c: flat(function(PCG64(*c[:4]), *c[4:])), [INT] * columns, results)

    def run(generator, *rest):
        tensors = [*generator, *rest]
        after = [torch.empty(len(tensors[0]), dtype=dtype) for dtype, _ in results]
        kernel(len(tensors[0]), *[tensor.data_ptr() for tensor in [*tensors, *after]])
        return PCG64(*after[:4]), *after[4:]

    return run


def flat(result):
    generator, *rest = result
    return [*generator, *rest]


def numpy_generators():
    return [np.random.default_rng(seed) for seed in SEEDS]


@pytest.fixture(params=["tensors", "compiled"])
def wrap(request):
    """What makes a function run: as it is on tensors, or compiled."""
    return (lambda function, outputs, columns=4: function) if request.param == "tensors" else compiled


def test_bits(wrap):
    draw = wrap(pcg64.next_uint64, [INT])
    generator = pcg64.seeded(SEEDS)
    expected = np.stack([rng.integers(0, 2**64, 3000, dtype=np.uint64) for rng in numpy_generators()], 1)
    for row in expected:
        generator, bits = draw(generator)
        assert np.array_equal(bits.numpy().view(np.uint64), row)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.05, 0.05), (-0.6, -0.4), (-np.pi, np.pi)])
def test_uniform(wrap, low, high):
    draw = wrap(lambda generator: pcg64.uniform(generator, low, high), [FLOAT])
    generator = pcg64.seeded(SEEDS)
    expected = np.stack([rng.uniform(low, high, 1000) for rng in numpy_generators()], 1)
    for row in expected:
        generator, numbers = draw(generator)
        assert np.array_equal(numbers.numpy(), row)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 2), (-9999, 9999), (3, 4), (0, 2**24), (0, 2**24 - 1), (5, 2**23 + 2**22 + 7)],  # the last: 1 in 340 rejected
)
def test_integers(wrap, low, high):
    """One by one, with the half of a draw that is left over."""
    draw = wrap(lambda generator, buffer: pcg64.integers(generator, buffer, low, high), [INT, INT], columns=5)
    generator = pcg64.seeded(SEEDS)
    buffer = torch.full((len(SEEDS),), EMPTY)
    rngs = numpy_generators()
    for _ in range(400):
        generator, buffer, numbers = draw(generator, buffer)
        assert numbers.tolist() == [rng.integers(low, high) for rng in rngs]
    after = [rng.bit_generator.state for rng in rngs]
    assert [number % 2**64 for number in generator.state_low.tolist()] == [s["state"]["state"] % 2**64 for s in after]
    assert (buffer != EMPTY).int().tolist() == [s["has_uint32"] for s in after]


def test_integers_and_doubles_in_turn(wrap):
    """A double leaves the half alone that an integer has left."""

    def both(generator, buffer):
        generator, buffer, integer = pcg64.integers(generator, buffer, -9999, 9999)
        generator, number = pcg64.next_double(generator)
        return generator, buffer, integer, number

    draw = wrap(both, [INT, INT, FLOAT], columns=5)
    generator = pcg64.seeded(SEEDS)
    buffer = torch.full((len(SEEDS),), EMPTY)
    rngs = numpy_generators()
    for _ in range(101):
        generator, buffer, integer, number = draw(generator, buffer)
        assert [*zip(integer.tolist(), number.tolist(), strict=True)] == [
            (rng.integers(-9999, 9999), rng.random()) for rng in rngs
        ]


def test_rotation_by_all_counts():
    bits = torch.tensor([0x0123456789ABCDEF, -1, -(2**63), 1])
    for count in range(64):
        rotated = pcg64._rotate_right(bits, torch.tensor(count))
        for number, result in zip(bits.tolist(), rotated.tolist(), strict=True):
            number %= 2**64
            assert result % 2**64 == (number >> count | number << (64 - count)) % 2**64


def test_too_many_integers():
    with pytest.raises(ValueError, match="expected low < high <= low \\+ 16777216, got 0 and 16777217"):
        pcg64.integers(pcg64.seeded([1]), torch.tensor([EMPTY]), 0, 2**24 + 1)
    with pytest.raises(ValueError, match="got 3 and 3"):
        pcg64.integers(pcg64.seeded([1]), torch.tensor([EMPTY]), 3, 3)
