"""From tables to what people read: figures, an HTML page, a Markdown summary, TensorBoard runs.

In comes an :class:`~pgkit.compare.tables.Analysis`; out go files. Start in ``html.py``: it draws the figures
(``figures.py``, which calls ``figures_runs.py`` and ``figures_pairs.py``), chooses the columns of tables
(``columns.py``), writes the sentences (``prose.py``) and fills ``templates/``. The look is that of ``pgkit/plots/``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, ["figures"])
