"""Pydantic models that several route modules share: they validate input, encode output and describe both."""
