"""Transpose a matrix into contiguous rows, a square of vector registers at a time."""

from llvmlite import ir

from pgkit.compiler.ir import Index, for_range, load, store

SQUARE = 8
"""Rows and columns of the squares that are transposed in registers."""


def transpose(
    builder: ir.IRBuilder,
    real: ir.Type,
    source: ir.Value,
    stride: Index,
    shape: tuple[Index, Index],
    target: ir.Value,
) -> None:
    """Copy a matrix whose columns are contiguous to contiguous rows.

    Args:
        builder: of the function.
        real: the type of the numbers.
        source: column j begins ``j * stride`` numbers from here.
        stride: see above.
        shape: rows K and columns N.
        target: ``(K, N)``, written.
    """
    rows, columns = shape
    column_squares = columns // SQUARE
    row_squares = rows // SQUARE
    vector = ir.VectorType(real, SQUARE)
    with for_range(builder, column_squares) as across, for_range(builder, row_squares) as down:
        first_column = across * SQUARE
        first_row = down * SQUARE
        square = [load(builder, vector, source, (first_column + step) * stride + first_row) for step in range(SQUARE)]
        for step, row in enumerate(_transposed_square(builder, square)):
            store(builder, row, target, (first_row + step) * columns + first_column)
    # What the squares leave: the last columns at full height, then the last rows of the other columns.
    full_columns = column_squares * SQUARE
    full_rows = row_squares * SQUARE
    _transpose_rest(
        builder, real, (source, stride, target, columns), (Index(builder, 0), rows), (full_columns, columns)
    )
    _transpose_rest(
        builder, real, (source, stride, target, columns), (full_rows, rows), (Index(builder, 0), full_columns)
    )


def _transpose_rest(
    builder: ir.IRBuilder,
    real: ir.Type,
    matrices: tuple[ir.Value, Index, ir.Value, Index],
    rows: tuple[Index, Index],
    columns: tuple[Index, Index],
) -> None:
    """The same number by number, for rows and columns in these half-open ranges."""
    source, stride, target, target_stride = matrices
    first_row, last_row = rows
    first_column, last_column = columns
    with for_range(builder, last_column - first_column) as across, for_range(builder, last_row - first_row) as down:
        column = first_column + across
        row = first_row + down
        store(builder, load(builder, real, source, column * stride + row), target, row * target_stride + column)


def _transposed_square(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """The columns of a square of vectors.

    Blocks of 1, then 2, then 4 numbers on either side of the diagonal change places. Each round is two shuffles per
    pair of registers, so the whole takes 3 * SQUARE shuffles where single numbers would take SQUARE * SQUARE loads.
    """
    block = 1
    while block < SQUARE:
        low = [i if not i & block else SQUARE + i - block for i in range(SQUARE)]
        high = [i + block if not i & block else SQUARE + i for i in range(SQUARE)]
        exchanged = list(rows)
        for i in range(SQUARE):
            if not i & block:
                exchanged[i] = _shuffle(builder, rows[i], rows[i + block], low)
                exchanged[i + block] = _shuffle(builder, rows[i], rows[i + block], high)
        rows = exchanged
        block *= 2
    return rows


def _shuffle(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
    """The numbers of two vectors at these positions, the second vector's positions behind the first's."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)
    return builder.shuffle_vector(first, second, mask)
