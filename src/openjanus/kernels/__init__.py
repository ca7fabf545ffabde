"""Kernels of our own, in C; see linear.py."""
