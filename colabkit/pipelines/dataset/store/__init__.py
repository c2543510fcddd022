"""The store of a dataset: its items, their codes, and how they are committed."""
