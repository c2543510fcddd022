"""Servers on this machine that speak as S3 and the Hub do: for the demo, which needs no account, and for tests."""
