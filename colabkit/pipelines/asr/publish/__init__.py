"""The step that publishes a model with its card."""
