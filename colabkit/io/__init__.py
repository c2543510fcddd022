"""Floor 2: the outside world: audio files, synthetic voices."""
