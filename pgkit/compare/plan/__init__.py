"""What a comparison is going to run."""
