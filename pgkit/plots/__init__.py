"""How results are shown: one style of figures, tables with exact values, and self-contained HTML pages.

``style.py`` has the settings and axes of all figures and writes them as reproducible PNG and SVG; ``columns.py``
formats tables; ``page.py`` and ``templates/`` make pages of both. What is shown is decided elsewhere, in
``pgkit/compare/report/`` and ``pgkit/diagnose/report/``.
"""
