"""Configurations shipped with pgkit: ``pgkit train NAME`` finds them by file name."""
