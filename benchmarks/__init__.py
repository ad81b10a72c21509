"""Benchmarks: domains, rotation and budget in; JSON lines, tables and plots out."""
