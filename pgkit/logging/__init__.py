"""What a run writes: TensorBoard events, metrics.parquet."""
