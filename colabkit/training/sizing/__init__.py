"""Batch size from memory: predicted before touching a GPU, confirmed by few real steps, mended when memory runs out."""
