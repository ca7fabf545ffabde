"""Benchmarks: what a loaded model can do, measured so that others get the same number."""
