"""The step that scores: error rates and timelines."""
