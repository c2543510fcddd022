"""Floor 2: the outside world: audio, synthetic voices, samples and the places they lie at, transfers, models."""
