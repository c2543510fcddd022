"""Segments of speech: read, written, profiled, and cut from recordings."""
