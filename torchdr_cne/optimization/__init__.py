"""Phases and the one loop that minimises an objective through them."""
