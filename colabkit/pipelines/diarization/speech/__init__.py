"""The speech that conversations are made of: sources, recordings, and the bank of it."""
