"""Running the plan: batches, workers, the store of results."""
