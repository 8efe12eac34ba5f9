"""Code generators of the kernels; imported only when something is compiled."""
