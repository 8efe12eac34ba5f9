"""Sizes that kernels and their code generators share."""

NARROW = 4
"""A matrix with at most this many columns is narrow: its columns are multiplied one by one."""

COLUMN_PADDING = 16
"""Extra columns of a matmul's workspace: the last columns, if they do not fill a register, are copied there, padded to
a register's width (16 float32 numbers in the widest)."""

ROW_MULTIPLE = 8
"""The number of packed rows of a member is padded to a multiple of this, the width of compiled sums over samples, so
that a sum's bits do not depend on how many padded rows follow a member's samples."""
