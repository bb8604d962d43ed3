"""Benchmarks: speed, memory and quality beside other packages, kernel costs, and growth with n.

Run from the project's root, for instance ``python -m benchmarks.run --data mnist``.
"""
