"""Floor 2: the outside world: stores and shards of samples, audio files, synthetic voices."""
