"""From tables to figures, HTML, Markdown and TensorBoard."""
