"""The statistics of comparisons: pure functions of NumPy arrays, each with its definition and source."""
