"""Benchmarks of da-compose, from data to tables and plots, and its command line."""
