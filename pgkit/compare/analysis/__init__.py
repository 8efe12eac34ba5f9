"""From stored results to tables."""
