"""One process a GPU: starting them, what goes between them, and what a run is to each."""
