"""Composes the migrations from the objects in `db/schema`: `python -m tools.migrations`."""
