"""Training: the embedded model's recipe."""
