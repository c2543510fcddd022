"""The step that cuts recordings into segments."""
