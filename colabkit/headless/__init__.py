"""Notebooks without a browser: an engine for papermill that stops in good order, tells the truth and keeps secrets."""
