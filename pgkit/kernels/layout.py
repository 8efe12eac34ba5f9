"""Sizes that kernels and their code generators share."""

FEW = 4
"""Up to so many columns are taken one by one."""

PAD = 16
"""Room for columns that do not fill a register: a copy of them, one register wide."""

MULTIPLE = 8
"""A member has so many rows of samples, or a multiple, some of which are none: compiled sums have lanes."""
