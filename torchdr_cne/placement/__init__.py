"""Embedding of new points among the embedded points of a fit."""
