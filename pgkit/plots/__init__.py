"""How results are shown: learning curves for papers, one style of figures, tables, and self-contained HTML pages.

``learning.py`` draws the learning curves of runs (``pgkit plot``), which ``runs.py`` reads and labels; ``style.py`` has
the settings and axes of all figures and writes them as reproducible files; ``columns.py`` formats tables; ``page.py``
and ``templates/`` make pages of both. What a comparison and a diagnosis show is decided elsewhere, in
``pgkit/compare/report/`` and ``pgkit/diagnose/report/``.

The public names are listed in ``__init__.pyi`` and imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
