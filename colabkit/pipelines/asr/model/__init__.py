"""Recognizers: their kinds, what they hear, and the examples they learn from."""
