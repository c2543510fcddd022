"""Batch size from memory: predicted before a GPU is touched, confirmed by a few real steps, and mended when memory runs out."""
