"""Comparisons of optimizers, from a plan to a report: see README.md beside this file.

>>> from pgkit import compare
>>> analysis = compare.load("comparisons/compare-cartpole")  # doctest: +SKIP
>>> analysis.tables["arms"][["agent", "optimizer", "mean", "failure_rate"]]  # doctest: +SKIP

Names are imported when they are first used, so that ``import pgkit`` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgkit.compare.api import compare, load, load_pooled, report, report_pooled
    from pgkit.compare.plan.plan import Plan, read_plan
    from pgkit.compare.report import figures
    from pgkit.compare.tables import Analysis

_HOME = {
    "Analysis": "tables",
    "Plan": "plan.plan",
    "compare": "api",
    "load": "api",
    "load_pooled": "api",
    "read_plan": "plan.plan",
    "report": "api",
    "report_pooled": "api",
}

__all__ = [
    "Analysis",
    "Plan",
    "compare",
    "figures",
    "load",
    "load_pooled",
    "read_plan",
    "report",
    "report_pooled",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"pgkit.compare.{_HOME[name]}"), name)
    if name == "figures":
        return import_module("pgkit.compare.report.figures")
    raise AttributeError(f"module 'pgkit.compare' has no attribute {name!r}")
