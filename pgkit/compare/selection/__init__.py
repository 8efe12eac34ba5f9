"""Scores of runs, and the settings they select."""
