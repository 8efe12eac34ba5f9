"""Run directories: checkpoints, provenance, writing and reading."""
