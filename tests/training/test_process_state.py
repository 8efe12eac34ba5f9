"""What a process has set does not reach training, and is afterwards what it was."""

import ctypes
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from helpers.resumable_runs import CARTPOLE, config
from helpers.trees import assert_equal

import pgkit
from pgkit.system.process_state import blas_threads, isolated_process
from pgkit.training.result import TrainResult


@contextmanager
def changed(get: Callable[[], Any], change: Callable[[Any], None], value: Any) -> Iterator[None]:
    """Set something for the whole process inside the block."""
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


def flushes() -> bool:
    """Whether subnormal numbers are flushed to zero."""
    return bool(torch.tensor(2.3e-308, dtype=torch.float64, device="cpu") / 2 == 0)


def numpy_threads() -> list[int]:
    """The threads of matrix products in NumPy and SciPy."""
    return [library["num_threads"] for library in blas_threads().info()]


def state() -> dict[str, Any]:
    """What the process has set."""
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.ones(1).device.type,
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "flush": flushes(),
        "threads": torch.get_num_threads(),
        "blas": numpy_threads(),
        "random": torch.get_rng_state().tolist()[:100],
    }


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "default dtype": lambda: changed(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "default device": lambda: changed(lambda: None, torch.set_default_device, "meta"),
    "device context": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "flush subnormals": lambda: changed(flushes, torch.set_flush_denormal, True),
    "two threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 2),
    "two threads of NumPy": lambda: blas_threads().limit(limits=3),
}


class Meddling(gymnasium.Env[Any, Any]):
    """An environment whose constructor sets what pgkit computes with."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, meddle: bool = True) -> None:
        if meddle:
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            torch.set_num_threads(3)
            torch.set_flush_denormal(True)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        return self._observe(), float(action), bool(self.np_random.random() < 0.2), False, {}

    def _observe(self) -> Any:
        return self.np_random.uniform(size=2).astype(np.float32)


gymnasium.register("Meddling-v0", Meddling)


def short(**changes: Any) -> Any:
    """A run of a few updates."""
    return config(**{"steps": 300, "env": CARTPOLE} | changes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainResult, Path]:
    """A run in a process that has set nothing, and its directory."""
    place = tmp_path_factory.mktemp("plain") / "run"
    return pgkit.train(short(), place), place


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_process_change_no_bit_and_stay(name: str, plain: tuple[TrainResult, Path]) -> None:
    whole, place = plain
    evaluated = pgkit.evaluate_run(place, episodes=3)
    untouched = state()
    with SETTINGS[name]():
        before = state()
        assert before != untouched
        result = pgkit.train(short())
        assert state() == before
        again = pgkit.evaluate_run(place, episodes=3)
        assert state() == before
    assert state() == untouched
    assert_equal(result.params, whole.params)
    assert_equal(tuple(result.final), tuple(whole.final))
    assert again == evaluated
    assert not any(leaf.is_inference() for leaf in result.params.values())


@pytest.mark.parametrize("name", ["default dtype", "default device", "inference_mode"])
def test_settings_of_the_process_do_not_reach_a_resumed_run(
    name: str, plain: tuple[TrainResult, Path], tmp_path: Path
) -> None:
    def stop(steps: float) -> None:
        if steps > 100:
            raise ArithmeticError("stopped on purpose")

    whole, _ = plain
    with SETTINGS[name]():
        before = state()
        with pytest.raises(ArithmeticError):
            pgkit.train(short(), tmp_path / "run", on_steps=stop)
        assert state() == before
        result = pgkit.resume(tmp_path / "run")
        assert state() == before
    assert result is not None
    assert_equal(result.params, whole.params)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["members"] == whole.table


def test_an_environment_may_set_what_it_likes() -> None:
    before = state()
    results = [pgkit.train(short(env={"id": "Meddling-v0", "kwargs": {"meddle": meddle}})) for meddle in (False, True)]
    assert state() == before
    assert_equal(results[0].params, results[1].params)


def test_settings_come_back_with_the_last_of_several_threads() -> None:
    inside = threading.Event()
    leave = threading.Event()

    def hold() -> None:
        with isolated_process():
            inside.set()
            leave.wait(10)

    with SETTINGS["default dtype"]():
        other = threading.Thread(target=hold)
        other.start()
        inside.wait(10)
        with isolated_process():
            pass
        assert torch.get_default_dtype() == torch.float32
        leave.set()
        other.join()
        assert torch.get_default_dtype() == torch.float64


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc has these options")
def test_freed_memory_goes_back_to_the_system_after_training(monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[int, int] = {}
    original = pgkit.system.process_state.set_malloc

    def record(option: int, value: int) -> None:
        options[option] = value
        original(option, value)

    monkeypatch.setattr(pgkit.system.process_state, "set_malloc", record)
    monkeypatch.setattr(pgkit.system.cpu, "set_malloc", record)
    pgkit.train(short())
    assert options == {-1: 64 << 20, -2: 128 << 10, -3: 32 << 20}
