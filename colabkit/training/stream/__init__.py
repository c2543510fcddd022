"""The stream of samples: which comes when, in which batch, of which source."""
