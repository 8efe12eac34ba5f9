"""Networks and action distributions of a population."""
