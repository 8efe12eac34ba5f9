"""Why a run learnt, stalled or collapsed: measurements at frozen policies, and verdicts that they back.

In comes a run directory with checkpoints. A *point* is one member at one checkpoint; many copies of it under fresh
random numbers train as one population (``points.py``, ``copies.py``). Out go quantities with intervals, tables,
figures, a report and verdicts in words (``results.py``, ``verdicts.py``, ``report/``). Every measurement is also a pure
function of arrays or parameters. Start with the README, then ``api.py`` and ``scan.py``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
