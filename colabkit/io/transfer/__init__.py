"""Transfers between places: uploads, downloads, and what is pushed to the Hub."""
