"""The step that trains: batches and the loop."""
