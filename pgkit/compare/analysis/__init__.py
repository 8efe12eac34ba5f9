"""From stored runs to tables of statistics.

In come a plan and its stored runs; out goes an :class:`~pgkit.compare.tables.Analysis`. ``analyse.py`` computes the
tables, with the functions of :mod:`pgkit.stats` and one random generator per place, so equal runs give equal bytes;
``across_environments.py`` adds the measures across environments; ``pool.py`` joins comparisons that were run one by
one. A new statistic is a column in ``compare/tables.py`` and its value in ``analyse.py``.
"""
