"""Which optimizer is more stable, and for which learning rates: comparisons with honest statistics."""
