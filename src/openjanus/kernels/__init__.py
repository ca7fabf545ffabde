"""Kernels of our own, in C; see decode.py."""
