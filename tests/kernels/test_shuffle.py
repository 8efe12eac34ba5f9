"""Orders of samples are permutations, the same from compiled loops and tensor operations, and differ between epochs."""

import pytest
import torch
from helpers.compile_mode import set_compile_mode

from pgkit.kernels.shuffle import shuffled_order, take_rows
from pgkit.seeding import stream_keys

SEEDS = range(3)
KEYS = stream_keys(SEEDS, "shuffle")
COUNTERS = torch.tensor([0, 1, 7]) << 32


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 100, 1000])
def test_each_epoch_has_each_sample_once(samples: int) -> None:
    order = shuffled_order(KEYS, COUNTERS, 4, samples).view(3, 4, samples)
    assert torch.equal(order.sort(2).values, torch.arange(samples).expand(3, 4, samples))


@pytest.mark.parametrize("samples", [1, 2, 8, 100, 1000])
def test_compiled_orders_are_those_of_tensor_operations(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = shuffled_order(KEYS, COUNTERS, 3, samples)
    set_compile_mode(monkeypatch, "off")
    assert torch.equal(compiled, shuffled_order(KEYS, COUNTERS, 3, samples))


def test_orders_differ_between_members_epochs_and_calls() -> None:
    first = shuffled_order(KEYS, COUNTERS, 2, 50).view(6, 50)
    second = shuffled_order(KEYS, COUNTERS + (1 << 32), 2, 50).view(6, 50)
    orders = {tuple(order.tolist()) for order in (*first, *second)}
    assert len(orders) == 12


def test_every_place_is_equally_likely() -> None:
    """Where sample 0 of 4 goes, in 4,000 epochs: 1,000 each, give or take five standard deviations of 27."""
    places = shuffled_order(KEYS[:1], COUNTERS[:1], 4000, 4).view(4000, 4).eq(0).sum(0)
    assert (places - 1000).abs().max() < 140


def test_a_members_order_is_the_same_alone() -> None:
    together = shuffled_order(KEYS, COUNTERS, 2, 33)
    for k in SEEDS:
        assert torch.equal(shuffled_order(KEYS[k : k + 1], COUNTERS[k : k + 1], 2, 33)[0], together[k])


@pytest.mark.parametrize("mode", ["kernels", "off"])
def test_rows_are_taken_in_that_order(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_compile_mode(monkeypatch, mode)
    order = shuffled_order(KEYS, COUNTERS, 2, 12)
    columns = [torch.randn(3, 12, 5), torch.randint(9, (3, 12)), torch.rand(3, 12) < 0.5, torch.randn(3, 12)]
    for number in range(6):
        taken = take_rows(columns, order, torch.tensor([number]), 4)
        for column, rows in zip(columns, taken, strict=True):
            expected = [column[k, order[k, 4 * number : 4 * number + 4]] for k in SEEDS]
            assert torch.equal(rows, torch.stack(expected))
