"""Settings of all tests."""

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from threadpoolctl import threadpool_limits

from pgkit.optim import registry
from pgkit.system.garbage import collect_rarely

os.environ["MPLBACKEND"] = "Agg"  # no window, on any machine
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts what is in its background so
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit that, and tests press Ctrl-C in them

torch.set_num_threads(1)  # as training does; more would also fight over the cores
threadpool_limits(1, user_api="blas")  # those of NumPy likewise
collect_rarely()  # as the command line does

# The same examples on every machine and every time: a test that fails once, fails again.
hypothesis.settings.register_profile("pgkit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pgkit")


@pytest.fixture(autouse=True)
def optimizers_of_a_test_end_with_it() -> Iterator[None]:
    """What a test registers is unknown to the next one, whatever the order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
        yield
