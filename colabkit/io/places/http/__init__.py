"""Asking over HTTP: connections, signatures, patience, and answers read in pieces."""
