"""Transcribed speech: where it comes from, its transcripts, its texts."""
