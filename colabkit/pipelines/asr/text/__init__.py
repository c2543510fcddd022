"""The step that cleans texts: spoken forms, numbers, tags, and the vocabulary."""
