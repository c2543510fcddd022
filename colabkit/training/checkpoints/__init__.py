"""Generations of a checkpoint: what is in one, what they lie on, and how they get to a Drive that may be away."""
