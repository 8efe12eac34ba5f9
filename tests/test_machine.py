"""What pgkit asks of the libraries below it."""

import subprocess
import sys

import pytest

UPDATES = """
import resource, threadpoolctl, torch
from pgkit import load_config, machine, members, population, training

built = population.build(members(load_config("cartpole-actor-critic", ["seeds=64", "rollout_steps=5"])))
for _ in range(20):
    training.update(built)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    training.update(built)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
print(max(library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"))
print(torch.get_num_threads())
print(machine.blas())
"""


def test_training_has_one_thread_and_keeps_its_memory() -> None:
    """An update of 64 members hardly ever meets a page that is new to it; where glibc is left alone, it meets many."""
    if sys.platform != "linux":
        pytest.skip("page faults are counted on Linux")
    output = subprocess.run([sys.executable, "-c", UPDATES], capture_output=True, text=True, check=True).stdout
    faults, blas_threads, torch_threads, blas = output.splitlines()
    assert float(faults) < 5
    assert int(blas_threads) == int(torch_threads) == 1
    assert blas
