"""Settings of all tests."""

import os

import hypothesis
import torch

os.environ["MPLBACKEND"] = "Agg"  # no window, on any machine

torch.set_num_threads(1)  # as training does; more would also fight over the cores

# The same examples on every machine and every time: a test that fails once, fails again.
hypothesis.settings.register_profile("pgkit", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("pgkit")
