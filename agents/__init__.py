"""The algorithms, one file each: every module here is an agent that a configuration can name."""
