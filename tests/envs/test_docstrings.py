"""The examples in docstrings of environments and of evaluation run, and show what they say."""

import doctest
from importlib import import_module

import pytest

MODULES = [
    *["pgkit.envs", "pgkit.envs.base", "pgkit.envs.elementwise", "pgkit.envs.errors", "pgkit.envs.make"],
    *[
        "pgkit.envs.check",
        "pgkit.envs.normalize",
        "pgkit.envs.pcg64",
        "pgkit.envs.rescale",
        "pgkit.envs.seeding",
        "pgkit.envs.vector_env",
        "pgkit.rollouts.evaluate",
    ],
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
