"""Comparisons of optimizers, from a plan to a report.

In comes a comparison's configuration (``configs/compare-*.toml``, :mod:`pgkit.compare.plan.schema`); out go stored
runs, tables, figures and a report below ``comparisons/<name>``. The subpackages, each of which imports only from those
before it:

- ``plan``: what will run, validated and hashed before anything does.
- ``selection``: scores of runs, and the settings that they select for the next stage.
- ``execution``: batches of runs, trained as populations on local processes or on Ray, stored batch by batch.
- ``analysis``: stored runs to tables of statistics (:mod:`pgkit.stats`); several comparisons as one.
- ``report``: tables to figures, an HTML page, a Markdown summary and TensorBoard runs.

Start reading in ``api.py``; ``README.md`` beside this file explains the rules and what a comparison found. A new
measure is a column in ``tables.py``, computed in ``analysis``, shown in ``report``.

>>> from pgkit import compare
>>> plan = compare.read_plan("compare-cartpole", {"tier": "standard"})
>>> list(plan.arms), len(plan.rates)
(['sgd', 'momentum', 'rmsprop', 'adam'], 11)

The public names are listed in ``__init__.pyi`` and imported when they are first used.
"""

from typing import Any

import lazy_loader

_load_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_RENAMED = {"load": "load_analysis", "load_pooled": "load_pooled_analysis", "report_pooled": "build_pooled_report"}
"""Public names of earlier versions; ``report``, the function, is ``build_report``, because a package has that name."""


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from pgkit.system.renamed import renamed

        raise renamed(__name__, name, f"{__name__}.{_RENAMED[name]}")
    return _load_name(name)
