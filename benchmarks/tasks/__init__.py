"""Signatures, depth, many tasks and transfer: the paper's regimes other than adaptation."""
