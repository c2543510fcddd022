"""The step that trains: batches, the loop, and its callbacks."""
