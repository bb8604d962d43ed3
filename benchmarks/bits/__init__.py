"""Digests of what small fits give, to tell whether a change of the code has changed a bit of any result."""
