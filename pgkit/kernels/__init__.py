"""Compiled numerical kernels with tensor twins: matrix products, MLP passes, scans, packing, categorical."""
