"""Callbacks: see what happens in a run, and stop it. They change nothing in what is learnt.

- ``protocol``: the methods of a callback, and ``Stop``. Start reading there.
- ``views``: what these methods get.
- ``stopping``: callbacks that stop a run.
- ``dispatch``: calls the callbacks of a run, for :mod:`pgkit.training`.

The README of this package says when they are called, in which process, and what that costs.
"""

from pgkit.callbacks.protocol import Callback, CallbackError, Stop
from pgkit.callbacks.stopping import StopTrainingOnNoModelImprovement, StopTrainingOnRewardThreshold
from pgkit.callbacks.views import EvaluationView, LogView, RolloutView, RunEnd, RunStart, UpdateView

__all__ = [
    "Callback",
    "CallbackError",
    "EvaluationView",
    "LogView",
    "RolloutView",
    "RunEnd",
    "RunStart",
    "Stop",
    "StopTrainingOnNoModelImprovement",
    "StopTrainingOnRewardThreshold",
    "UpdateView",
]
