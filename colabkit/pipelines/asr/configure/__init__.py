"""The step that chooses how to train: batches, lengths, memory."""
