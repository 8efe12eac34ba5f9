"""Outputs of a diagnosis: JSON, tables, figures, TensorBoard, and a page."""
