"""Segments of speech: what one is, how it is written, named and found, and read again."""
