"""Conversations: simulated ones, how turns are taken, and windows of them."""
