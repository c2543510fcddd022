"""Runs: their steps, their state folder, what belongs to whom, and what is told of them."""
