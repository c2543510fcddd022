"""Training: checkpoints, the stream of samples, processes that work together, and sizing."""
