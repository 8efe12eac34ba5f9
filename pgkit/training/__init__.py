"""Training a population: the loop, the monitor, workers, resume."""
