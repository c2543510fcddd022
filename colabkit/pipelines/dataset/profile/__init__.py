"""The step that says what the segments are: hours, rates, quality, and a picture of it."""
