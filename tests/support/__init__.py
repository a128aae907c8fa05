"""Helpers that tests share: their server, and functions to use it."""
