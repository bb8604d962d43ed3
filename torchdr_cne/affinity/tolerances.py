"""When the solutions of rows are good enough, on the CPU and on other devices."""

MIN_RELATIVE_SCALE = 1e-3
"""Lower bound of a membership's scale σ, relative to the mean distance."""
SUM_TOLERANCE = 1e-6
ENTROPY_TOLERANCE = 1e-7
WIDEST = 40.0
"""Bound of the logarithm of a Gaussian's precision, in units of the mean square of the row."""
NARROWEST_BRACKET = 1e-12
MOST_STEPS, PATIENCE = 100, 30
