"""Ours, found before the `tests` that a package on PyPI may bring along."""
