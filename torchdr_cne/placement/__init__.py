"""New points among the embedded points of a fit."""
